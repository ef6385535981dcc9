"""The order in which an engine gives up the blocks that no request uses. Pure.

As vLLM's block pool has it (`v1/core/block_pool.py`): a request's blocks join the back of the queue when it
ends, the tail of its prompt before its head, and the front is evicted first. Blocks without a hash, such as
the partly filled last block of a request, return to the very front: they are the pool's free blocks and no
part of this order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple

NOBODY: Set[str] = frozenset()


class Node:
    """The content of one block: its tokens (4 bytes each) under those of its parent.

    `copies` are the blocks that hold it, the oldest first: that one is hit. `users` are the agents whose
    prefix it is part of, `prompts` counts the kept prompts that end here. A root has no tokens; its `key` is
    the namespace of the prompts that begin there, or the hash of the unknown block that it stands for.
    """

    __slots__ = ("children", "copies", "key", "parent", "prompts", "tokens", "users")

    def __init__(self, parent: Node | None, tokens: bytes) -> None:
        self.parent = parent
        self.tokens = tokens
        self.children: dict[bytes, Node] = {}
        self.key: object = None
        self.copies: list[Block] = []
        self.users: set[str] = set()
        self.prompts = 0


@dataclass(slots=True, eq=False)
class Block:
    """One block of the engine's pool: used by `holds` requests, or part of a release. `rank` says how many
    agents would miss it."""

    node: Node
    holds: int = 0
    release: Release | None = None
    rank: int = 0


class Group(NamedTuple):
    """Neighbours in the eviction order: how many blocks, and the agents that would miss them."""

    users: Set[str]
    blocks: int


class Release:
    """Blocks of one path that were released together, the `serial`-th in the eviction order.

    A parent's users include its child's: along the path, from tail to head, the number of users only grows,
    and where it is equal the users are.
    """

    __slots__ = ("parts", "serial")

    def __init__(self, serial: int) -> None:
        self.serial = serial
        self.parts: dict[int, set[Block]] = {}

    def add(self, block: Block) -> None:
        """Take in a block."""
        block.release = self
        block.rank = len(block.node.users) if _is_missed(block, self) else 0
        self.parts.setdefault(block.rank, set()).add(block)

    def drop(self, block: Block) -> None:
        """Let go of a block."""
        part = self.parts[block.rank]
        part.remove(block)
        if not part:
            del self.parts[block.rank]
        block.release = None


def _is_missed(block: Block, release: Release) -> bool:
    """Of several blocks with one content, the one that is hit and the one that stays longest are missed."""
    copies = block.node.copies
    return block is copies[0] or all(
        other.release is not None and other.release.serial <= release.serial for other in copies
    )


class EvictionOrder:
    """Who goes first. Of all `evictions`, `unpredicted` counts those that this order didn't foresee."""

    def __init__(self) -> None:
        self.evictions = 0
        self.unpredicted = 0
        self._releases: OrderedDict[Release, None] = OrderedDict()
        self._serial = 0

    def append(self, path: Iterable[Block]) -> None:
        """Blocks of one path were used: those that no request holds go to the back together."""
        self._serial += 1
        release = Release(self._serial)
        for block in path:
            # A request that waits doesn't hold its blocks yet: they may be gone by the time it ends.
            if not block.holds and block in block.node.copies:
                self._take_out(block)
                release.add(block)
                self.rank(block.node)
        if release.parts:
            self._releases[release] = None

    def prepend(self, blocks: Iterable[Block]) -> None:
        """These blocks are to be evicted before all others, but for those that a request holds."""
        first = next(iter(self._releases), None)
        release = Release(first.serial - 1 if first is not None else self._serial)
        for block in blocks:
            if block.release is not None:
                self._take_out(block)
                release.add(block)
                self.rank(block.node)
        if release.parts:
            self._releases[release] = None
            self._releases.move_to_end(release, last=False)

    def hold(self, block: Block) -> None:
        """A request uses the block: it can't be evicted."""
        self._take_out(block)
        block.holds += 1
        self.rank(block.node)

    def evicted(self, copies: Sequence[Block]) -> Block:
        """One of these blocks, equal in content, was evicted: take the first in the order out and return it.

        What stood before it must have been used since: it is put right behind.
        """
        self.evictions += 1
        placed = [
            (block.release.serial, block.release, block) for block in copies if block.release is not None
        ]
        if not placed:
            self.unpredicted += 1
            return copies[0]
        _, release, block = min(placed, key=lambda entry: entry[0])
        first = next(iter(self._releases))
        if first is not release or block.rank > min(release.parts):
            self.unpredicted += 1
            self._releases.move_to_end(release, last=False)
            release.serial = first.serial - 1
        self._take_out(block)
        return block

    def rank(self, node: Node) -> None:
        """The users or the copies of a node have changed; its blocks keep their place."""
        for block in node.copies:
            release = block.release
            if release is not None:
                release.drop(block)
                release.add(block)

    def groups(self) -> Iterator[Group]:
        """Yield the groups, the first to be evicted first."""
        for release in self._releases:
            for rank in sorted(release.parts):
                part = release.parts[rank]
                yield Group(next(iter(part)).node.users if rank else NOBODY, len(part))

    def clear(self) -> None:
        """Nothing is cached any more."""
        self._releases.clear()

    def _take_out(self, block: Block) -> None:
        release = block.release
        if release is not None:
            release.drop(block)
            if not release.parts:
                self._releases.pop(release, None)
