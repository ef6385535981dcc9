"""The order in which an engine gives up the blocks that no request uses. Pure.

As vLLM's block pool has it (`v1/core/block_pool.py`): a request's blocks join the back of the queue when it ends, the
tail of its prompt before its head, and the front is evicted first. Blocks without a hash, such as the partly filled
last block of a request, return to the very front: they are the pool's free blocks and no part of this order.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Node:
    """The content of one block: its tokens (4 bytes each) under those of its parent.

    `copies` are the blocks that hold it, the oldest first: that one is hit. `users` are the agents whose prefix it is
    part of, `prompts` counts the kept prompts that end here. A root has no tokens; its `key` is the namespace of the
    prompts that begin there, or the hash of the unknown block that it stands for.
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
    """One block of the engine's pool: used by `holds` requests, or part of a release."""

    node: Node
    holds: int = 0
    release: Release | None = None


class Group(NamedTuple):
    """Neighbours in the eviction order: how many blocks, and the agents whose prefix they are part of."""

    users: set[str]
    blocks: int


class Release:
    """Blocks of one path that were released together.

    A parent's users include its child's: along the path, from tail to head, the number of users only grows, and where
    it is equal the users are.
    """

    __slots__ = ("parts",)

    def __init__(self) -> None:
        self.parts: dict[int, set[Block]] = {}

    def add(self, block: Block) -> None:
        """Take in a block."""
        self.parts.setdefault(len(block.node.users), set()).add(block)
        block.release = self

    def drop(self, block: Block) -> None:
        """Let go of a block; its node's users are still those that it came with."""
        count = len(block.node.users)
        part = self.parts[count]
        part.remove(block)
        if not part:
            del self.parts[count]
        block.release = None


class EvictionOrder:
    """Who goes first. `unpredicted` counts the evictions that this order didn't foresee."""

    def __init__(self) -> None:
        self.unpredicted = 0
        self._releases: OrderedDict[Release, None] = OrderedDict()

    def append(self, path: Iterable[Block]) -> None:
        """Blocks of one path were used: those that no request holds go to the back together."""
        release = Release()
        for block in path:
            if not block.holds:
                self._take_out(block)
                release.add(block)
        if release.parts:
            self._releases[release] = None

    def hold(self, block: Block) -> None:
        """A request uses the block: it can't be evicted."""
        self._take_out(block)
        block.holds += 1

    def evicted(self, copies: Sequence[Block]) -> Block:
        """One of these blocks, equal in content, was evicted: take the first in the order out and return it.

        What stood before it must have been used since: it is put right behind.
        """
        block = copies[0] if len(copies) == 1 else self._first(copies)
        release = block.release
        if release is None:
            self.unpredicted += 1
            return block
        first = next(iter(self._releases)) is release
        if not first or len(block.node.users) > min(release.parts):
            self.unpredicted += 1
            self._releases.move_to_end(release, last=False)
        self._take_out(block)
        return block

    def groups(self) -> Iterator[Group]:
        """Yield the groups, the first to be evicted first."""
        for release in self._releases:
            for count in sorted(release.parts):
                part = release.parts[count]
                yield Group(next(iter(part)).node.users, len(part))

    def clear(self) -> None:
        """Nothing is cached any more."""
        self._releases.clear()

    def _take_out(self, block: Block) -> None:
        release = block.release
        if release is not None:
            release.drop(block)
            if not release.parts:
                del self._releases[release]

    def _first(self, copies: Sequence[Block]) -> Block:
        by_release = {block.release: block for block in copies if block.release is not None}
        return next((by_release[release] for release in self._releases if release in by_release), copies[0])
