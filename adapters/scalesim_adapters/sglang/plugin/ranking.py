"""Which node of SGLang's radix tree should leave the device first, by who uses it and when they call next. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, Protocol, TypeVar

from scalesim_adapters.dues import DueTable


class TreeNode(Protocol):
    """What we use of a node. `last_access_time` only grows."""

    last_access_time: float

    @property
    def children(self) -> Mapping[object, Any]:
        """The nodes below, by what their tokens begin with."""
        ...


AnyNode = TypeVar("AnyNode", bound=TreeNode)


class Ranking(Generic[AnyNode]):
    """Ranks the leaves of the device's tree: the farthest user's first, nobody's before all; among equals the least
    recently used. A node counts for the nearest of its users.

    A session uses the path to where its newest prompt ends. Branches that only its older prompts took are nobody's:
    what an agent has seen and said in one call seldom begins its next prompt. `sessions` are those that SGLang notes
    at a node, the deepest that they have reached on some branch.
    """

    def __init__(self, table: DueTable, sessions: Callable[[AnyNode], Iterable[str]]) -> None:
        self._table = table
        self._sessions = sessions
        self._newest: dict[str, AnyNode] = {}

    def used(self, session: str, node: AnyNode) -> None:
        """A prompt of the session ends at a node."""
        self._newest[session] = node

    def closed(self, session: str) -> None:
        """The session uses nothing any more."""
        self._newest.pop(session, None)

    def clear(self) -> None:
        """Nobody uses anything any more."""
        self._newest.clear()

    def ending_at(self, node: AnyNode) -> list[str]:
        """Return the sessions whose newest prompt ends at a node."""
        return [session for session in self._sessions(node) if self._newest.get(session) is node]

    def shortened(self, sessions: Iterable[str], node: AnyNode | None) -> None:
        """Where the sessions' newest prompts ended was deleted: what is left of them ends at `node`, if anything."""
        for session in sessions:
            if node is None:
                self.closed(session)
            else:
                self.used(session, node)

    def key(self, node: AnyNode) -> tuple[float, float]:
        """Return what orders nodes: the lowest leaves first."""
        return -self.nearness(node), node.last_access_time

    def nearness(self, node: AnyNode) -> float:
        """Return the distance of the nearest user of a node in wall seconds; infinity where nobody is foreseen."""
        return min((self._table.nearness(session) for session in self._users(node)), default=math.inf)

    def _users(self, node: AnyNode) -> Iterator[str]:
        """Yield the users of a leaf of the device's tree: below it may still be nodes whose KV is on the host."""
        stack = [node]
        while stack:
            top = stack.pop()
            yield from self.ending_at(top)
            stack.extend(top.children.values())
