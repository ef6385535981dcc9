"""vLLM's queue of free blocks, which while dues are heard gives the block out first that is needed last.

Blocks that requests use are not in the queue, so whatever is in use stays by construction.
"""

from __future__ import annotations

from collections import OrderedDict
from time import monotonic

from vllm.logger import init_logger
from vllm.v1.core.kv_cache_utils import FreeKVCacheBlockQueue, KVCacheBlock

from scalesim_adapters.blockusers import BlockUsers
from scalesim_adapters.dueorder import DueOrder
from scalesim_adapters.dues import DueTable

NOBODY = ""

logger = init_logger("vllm.scalesim.queue")


class DueQueue(FreeKVCacheBlockQueue):
    """The engine's own queue, and beside it the same blocks by agent.

    Victims, while the table is fresh: what the engine wants reused first (blocks without content), then blocks of
    the farthest agent, nobody's and unknown agents' first, and of one agent or of unknown ones in the engine's order.
    Of agents with equal dues the one that was served last loses its blocks first. A block counts for the nearest of its
    users. While the table is stale: exactly the engine's order.

    A block is listed with any one of its users. That user is at least as far as the block's nearest one, so it is
    enough to look at the others when the block is about to be taken, and to list it anew where one is nearer.
    Everything costs O(log agents) per block, whatever the size of the pool.
    """

    def __init__(self, blocks: list[KVCacheBlock], table: DueTable, users: BlockUsers[int]) -> None:
        super().__init__(blocks)
        self._table = table
        self._users = users
        self._order = DueOrder(table)
        self._first: OrderedDict[int, KVCacheBlock] = OrderedDict()
        self._homes: dict[int, str] = {}
        self._shelves: dict[str, OrderedDict[int, tuple[int, KVCacheBlock]]] = {}
        self._unsorted: set[str] = set()
        self._stamp = 0
        self._batch = 0
        self._following = False
        for block in blocks:
            if block.block_hash is None:
                self._first[block.block_id] = block
            else:
                self._list(block)

    def popleft(self) -> KVCacheBlock:
        """Take one free block out. Raises `ValueError` where there is none."""
        if self.num_free_blocks and self._follows():
            block = self._victim()
            super().remove(block)
        else:
            block = super().popleft()
        self._unlist(block)
        return block

    def popleft_n(self, n: int) -> list[KVCacheBlock]:
        """Take `n` free blocks out; there must be as many."""
        assert self.num_free_blocks >= n
        if n and self._follows():
            taken = []
            for _ in range(n):
                block = self._victim()
                super().remove(block)
                self._unlist(block)
                taken.append(block)
            return taken
        blocks: list[KVCacheBlock] = super().popleft_n(n)
        for block in blocks:
            self._unlist(block)
        return blocks

    def remove(self, block: KVCacheBlock) -> None:
        """Take this block out: a request uses it again."""
        super().remove(block)
        self._unlist(block)

    def append(self, block: KVCacheBlock) -> None:
        """Add a block as the one to be reused last."""
        super().append(block)
        self._batch = self._stamp
        self._list(block)

    def append_n(self, blocks: list[KVCacheBlock]) -> None:
        """Add blocks as those to be reused last, the last of them last."""
        super().append_n(blocks)
        self._batch = self._stamp
        for block in blocks:
            self._list(block)

    def prepend_n(self, blocks: list[KVCacheBlock]) -> None:
        """Add blocks as those to be reused first, the first of them first."""
        super().prepend_n(blocks)
        for block in reversed(blocks):
            self._put_first(block)

    def emptied(self, block: KVCacheBlock) -> None:
        """A free block has lost its content: it is reused first. The engine's order stays."""
        self._unlist(block)
        self._put_first(block)

    def all_emptied(self) -> None:
        """All free blocks have lost their content."""
        self._first = OrderedDict((block.block_id, block) for block in self.get_all_free_blocks())
        self._homes.clear()
        self._shelves.clear()
        self._unsorted.clear()
        self._order.clear()

    def _follows(self) -> bool:
        follows = not self._table.stale(monotonic())
        if follows != self._following:
            self._following = follows
            logger.info(
                "evicting by due" if follows else "no dues are heard: evicting by recency, as vLLM does"
            )
        if follows:
            self._order.refresh()
        return follows

    def _victim(self) -> KVCacheBlock:
        if self._first:
            return next(iter(self._first.values()))
        while True:
            agent = self._order.farthest()
            assert agent is not None
            stamp, block = self._head(agent)
            users = self._users.get(block.block_id)
            nearest = agent if users is None else users.nearest(self._table)
            if nearest == agent or self._table.nearness(nearest) >= self._table.nearness(agent):
                return block
            self._unlist(block)
            self._shelve(block, nearest, stamp)

    def _list(self, block: KVCacheBlock) -> None:
        users = self._users.get(block.block_id)
        self._stamp += 1
        self._shelve(block, NOBODY if users is None else users.agents[-1], self._stamp)

    def _shelve(self, block: KVCacheBlock, agent: str, stamp: int) -> None:
        shelf = self._shelves.get(agent)
        if shelf is None:
            shelf = self._shelves[agent] = OrderedDict()
            self._order.put(agent, stamp, stamp)
        elif stamp < next(reversed(shelf.values()))[0]:
            self._unsorted.add(agent)
            if stamp < self._order.rank(agent):
                self._order.put(agent, stamp, self._order.served(agent))
        elif self._order.served(agent) <= self._batch:
            # Once for all blocks that are freed together.
            self._order.put(agent, self._order.rank(agent), max(stamp, self._order.served(agent)))
        shelf[block.block_id] = stamp, block
        self._homes[block.block_id] = agent

    def _unlist(self, block: KVCacheBlock) -> None:
        agent = self._homes.pop(block.block_id, None)
        if agent is None:
            del self._first[block.block_id]
            return
        shelf = self._shelves[agent]
        stamp, _ = shelf.pop(block.block_id)
        if not shelf:
            del self._shelves[agent]
            self._unsorted.discard(agent)
            self._order.discard(agent)
        elif stamp == self._order.rank(agent):
            self._order.put(agent, self._head(agent)[0], self._order.served(agent))

    def _head(self, agent: str) -> tuple[int, KVCacheBlock]:
        """Return the agent's block that the engine would reuse first, and its stamp."""
        shelf = self._shelves[agent]
        if agent in self._unsorted:
            self._unsorted.remove(agent)
            shelf = self._shelves[agent] = OrderedDict(sorted(shelf.items(), key=lambda item: item[1][0]))
        return next(iter(shelf.values()))

    def _put_first(self, block: KVCacheBlock) -> None:
        self._first[block.block_id] = block
        self._first.move_to_end(block.block_id, last=False)
