"""Agents in the order of their dues, farthest first, kept up incrementally. Pure; standard library only."""

from __future__ import annotations

import heapq
import math

from scalesim_adapters.dues import DueTable

# A clock's entries: minus the due, the place among equals, the agent.
_Entry = tuple[float, int, str]
_NO_CLOCK = "\0"
_SLACK = 64


class DueOrder:
    """Those agents that hold something, the farthest of them first; agents without a due are infinitely far.

    Of agents with equal dues the one comes first that was last served most recently. Simulations go through the agents
    of a step in an order that they keep, or by who has waited longest: either way who was served earlier calls earlier.
    Of agents without a due, of whom nothing is known, the one with the lowest `rank` comes first.

    Adding, moving or removing an agent takes O(log agents); a clock's tick moves nobody, since the order within one
    clock doesn't change and clocks are compared by their heads.
    """

    def __init__(self, table: DueTable) -> None:
        self.table = table
        self._watch = table.watch()
        self._heaps: dict[str, list[_Entry]] = {}
        self._entries: dict[str, tuple[str, _Entry]] = {}
        self._given: dict[str, tuple[int, int]] = {}
        self._garbage = 0

    def put(self, agent: str, rank: int, served: int) -> None:
        """Add the agent, or move it; `served` grows with every time that somebody is served."""
        if agent in self._entries:
            self._garbage += 1
        due = self.table.due(agent)
        clock, entry = (
            (_NO_CLOCK, (-math.inf, rank, agent)) if due is None else (due[0], (-due[1], -served, agent))
        )
        self._entries[agent] = clock, entry
        self._given[agent] = rank, served
        heapq.heappush(self._heaps.setdefault(clock, []), entry)
        if self._garbage > len(self._entries) + _SLACK:
            self._sweep()

    def rank(self, agent: str) -> int:
        """Return what the agent was put with last. Raises `KeyError` where it isn't in the order."""
        return self._given[agent][0]

    def served(self, agent: str) -> int:
        """Return when the agent was served, as it was put last. Raises `KeyError` where it isn't in the order."""
        return self._given[agent][1]

    def discard(self, agent: str) -> None:
        """Remove the agent, if it is there."""
        if self._entries.pop(agent, None) is not None:
            del self._given[agent]
            self._garbage += 1

    def refresh(self) -> None:
        """Move the agents whose due has changed since the last call."""
        for agent in self._watch.take():
            if agent in self._entries:
                self.put(agent, *self._given[agent])

    def farthest(self) -> str | None:
        """Return the farthest agent as of the last `refresh`; None where there is none."""
        best: tuple[float, int] | None = None
        found: str | None = None
        for clock in list(self._heaps):
            head = self._head(clock)
            if head is None:
                continue
            key = (-math.inf if clock == _NO_CLOCK else -self.table.gap(clock, -head[0]), head[1])
            if best is None or key < best:
                best, found = key, head[2]
        return found

    def clear(self) -> None:
        """Remove all agents."""
        self._entries.clear()
        self._given.clear()
        self._sweep()

    def __len__(self) -> int:
        """Return how many agents are in the order."""
        return len(self._entries)

    def _head(self, clock: str) -> _Entry | None:
        heap = self._heaps[clock]
        while heap:
            head = heap[0]
            if self._entries.get(head[2]) == (clock, head):
                return head
            heapq.heappop(heap)
            self._garbage -= 1
        del self._heaps[clock]
        return None

    def _sweep(self) -> None:
        """Build the heaps anew from what is current: they stay within twice the agents, over time at no cost."""
        self._heaps.clear()
        for clock, entry in self._entries.values():
            self._heaps.setdefault(clock, []).append(entry)
        for heap in self._heaps.values():
            heapq.heapify(heap)
        self._garbage = 0
