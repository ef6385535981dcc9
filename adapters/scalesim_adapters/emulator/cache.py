"""The paged prefix cache of vLLM V1: a pool of blocks, found by hash, evicted in the order of release."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence

from scalesim_adapters.emulator.chain import Chain, published
from scalesim_adapters.emulator.events import MEDIUM, AllBlocksCleared, BlockRemoved, KVEvent


class PrefixCache:
    """`blocks` usable blocks of `block_size` tokens.

    A block is held by the requests that use it or stands in the free queue, whose front is taken first. A
    free block keeps its content, and can be hit, until it is taken. The same hash may be stored in several
    blocks: a prompt of whole blocks computes its last block again, since vLLM needs at least one token to
    compute. `drain` yields what changed.
    """

    def __init__(self, blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self._free: OrderedDict[int, None] = OrderedDict.fromkeys(range(blocks))
        self._holders = [0] * blocks
        self._hash: list[bytes | None] = [None] * blocks
        self._copies: dict[bytes, OrderedDict[int, None]] = {}
        self._events: list[KVEvent] = []

    @property
    def free(self) -> int:
        """How many blocks no request holds, cached ones included."""
        return len(self._free)

    @property
    def usage(self) -> float:
        """The share of blocks that requests hold."""
        return 1 - len(self._free) / len(self._holders)

    def cached(self) -> Iterator[tuple[bytes, int]]:
        """Yield what can be found: each block's hash and how many copies of it there are."""
        return ((block_hash, len(copies)) for block_hash, copies in self._copies.items())

    def match(self, hashes: Sequence[bytes], tokens: int) -> list[int]:
        """Return the blocks of the longest cached run that leaves at least one of `tokens` to compute."""
        found = []
        for block_hash in hashes[: (tokens - 1) // self.block_size]:
            copies = self._copies.get(block_hash)
            if copies is None:
                break
            found.append(next(iter(copies)))
        return found

    def idle(self, blocks: Iterable[int]) -> int:
        """Count those of `blocks` that no request holds."""
        return sum(self._holders[block] == 0 for block in blocks)

    def hold(self, blocks: Iterable[int]) -> None:
        """Let one more request hold cached blocks, which protects them."""
        for block in blocks:
            if self._holders[block] == 0:
                del self._free[block]
            self._holders[block] += 1

    def take(self, count: int) -> list[int]:
        """Hold `count` blocks from the front of the free queue; what they cached is removed.

        Raises `ValueError` where there are fewer.
        """
        if count > self.free:
            raise ValueError(f"{count} blocks asked for, {self.free} free")
        taken = [self._free.popitem(last=False)[0] for _ in range(count)]
        for block in taken:
            self._forget(block)
            self._holders[block] = 1
        return taken

    def store(self, chain: Chain, blocks: Sequence[int], first: int, last: int) -> None:
        """Make blocks `first` to `last` (exclusive) of a chain findable in the `blocks` that hold them."""
        if first >= last:
            return
        for index in range(first, last):
            block, block_hash = blocks[index], chain.hashes[index]
            self._hash[block] = block_hash
            self._copies.setdefault(block_hash, OrderedDict())[block] = None
        self._events.append(chain.stored_event(first, last))

    def report(self, chain: Chain, count: int) -> None:
        """Announce the first `count` blocks of a chain once more, for its session."""
        if count:
            self._events.append(chain.stored_event(0, count))

    def release(self, blocks: Sequence[int]) -> None:
        """Let a request go of its blocks: they are taken tail first, and before all others if uncached."""
        for block in reversed(blocks):
            self._holders[block] -= 1
            if self._holders[block] == 0:
                self._free[block] = None
                if self._hash[block] is None:
                    self._free.move_to_end(block, last=False)

    def clear(self) -> bool:
        """Forget everything, unless a request holds a block; tell whether that was done."""
        if len(self._free) < len(self._holders):
            return False
        self._hash = [None] * len(self._hash)
        self._copies.clear()
        self._events.append(AllBlocksCleared())
        return True

    def drain(self) -> list[KVEvent]:
        """Return the events since the last call."""
        events, self._events = self._events, []
        return events

    def _forget(self, block: int) -> None:
        block_hash = self._hash[block]
        if block_hash is None:
            return
        self._hash[block] = None
        copies = self._copies[block_hash]
        del copies[block]
        if not copies:
            del self._copies[block_hash]
        self._events.append(BlockRemoved(block_hashes=[published(block_hash)], medium=MEDIUM, group_idx=0))
