"""The agents that an engine has prefixes of, in the order of their dues, kept up as these change. Pure.

A cycle looks at what has changed and at the near end: not at every agent. A tick of a clock changes no place: within a
clock the order is that of the dues, and clocks are compared as they are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Set
from heapq import merge
from itertools import chain
from operator import itemgetter
from typing import Protocol

from sortedcontainers import SortedList

from scalesim_daemon.board import overdue_after
from scalesim_daemon.clock import StreamClock
from scalesim_daemon.population import Population

_Entry = tuple[float, int, str]
"""Due, minus the recency, and the agent: of equal dues who has called last comes first."""
_AGENT = itemgetter(2)


class Tree(Protocol):
    """What is known of prefixes and their residency."""

    def agents(self) -> Iterator[str]:
        """Yield the agents whose prefix is known."""
        ...

    def prefix_blocks(self, agent: str) -> int:
        """Return the length of the agent's prefix in blocks, 0 where it isn't known."""
        ...

    def resident_blocks(self, agent: str) -> int:
        """Return how many blocks at the head of the agent's prefix are on the device without a hole."""
        ...

    def take_changed(self) -> Set[str] | None:
        """Return the agents of whom any of this may have changed since the last call; None where it may of all."""
        ...


class Nearness:
    """The agents of one tree, and those of them who lack blocks of their prefix."""

    def __init__(self, tree: Tree, population: Population) -> None:
        self.tree = tree
        self.everyone = Order(population)
        self.lacking = Order(population)
        self._watch = population.watch()

    def refresh(self, tree: Tree | None) -> None:
        """Take in what has changed; `tree` may be another one than before, None where no prefix is known any more."""
        moved = self._watch.copy()
        self._watch.clear()
        if tree is None:
            self.everyone.clear()
            self.lacking.clear()
            return
        changed = tree.take_changed()
        if changed is None or tree is not self.tree:
            self.tree = tree
            self.everyone.clear()
            self.lacking.clear()
            changed = frozenset(tree.agents())
        known: set[str] = set()
        lacking: set[str] = set()
        for agent in changed:
            blocks = tree.prefix_blocks(agent)
            if blocks:
                known.add(agent)
            else:
                self.everyone.drop(agent)
            if blocks > tree.resident_blocks(agent):
                lacking.add(agent)
            else:
                self.lacking.drop(agent)
        self.everyone.put(moved, known)
        self.lacking.put(moved, lacking)


class Order:
    """Some agents, in the order of their dues."""

    def __init__(self, population: Population) -> None:
        self._population = population
        self._entries: dict[str, tuple[tuple[str, _Entry], ...]] = {}
        self._orders: dict[str, SortedList] = {}

    def put(self, moved: Iterable[str], added: Iterable[str]) -> None:
        """Give those of the agents `moved` that are here their place anew, and those that are `added` one, unless they
        have it."""
        entries: dict[str, list[_Entry]] = {}
        here = [agent for agent in moved if agent in self._entries]
        for agent in (*here, *(agent for agent in added if agent not in self._entries)):
            now = self._entries_of(agent)
            if now != self._entries.get(agent):
                self.drop(agent)
                self._entries[agent] = now
                for source, entry in now:
                    entries.setdefault(source, []).append(entry)
        for source, some in entries.items():
            self._orders.setdefault(source, SortedList()).update(some)

    def drop(self, agent: str) -> None:
        """Take an agent out, if it is here."""
        for source, entry in self._entries.pop(agent, ()):
            order = self._orders[source]
            order.remove(entry)
            if not order:
                del self._orders[source]

    def clear(self) -> None:
        """Take all agents out."""
        self._entries.clear()
        self._orders.clear()

    def nearest(self) -> Iterator[str]:
        """Yield the agents of whom an invocation is foreseen, the nearest first; of those that are equally near, who
        has called last comes first."""
        orders = [
            (clock, _ahead(self._orders[source], clock))
            for source, (_, clock) in self._population.clocks().items()
            if source in self._orders
        ]
        if len(orders) == 1:
            return map(_AGENT, orders[0][1])
        # Who has dues by several clocks is as near as the nearest of them.
        return _once(map(_AGENT, merge(*(_in_seconds(*one) for one in orders))))

    def _entries_of(self, agent: str) -> tuple[tuple[str, _Entry], ...]:
        known = self._population.agents.get(agent)
        recency = 0 if known is None else known.recency
        told = self._population.board.told(agent)
        return tuple([(source, (due.at, -recency, agent)) for source, due in told])


def _ahead(order: SortedList, clock: StreamClock) -> Iterator[_Entry]:
    """Yield what isn't overdue, in the order of the distances: all that is due by now is equally near."""
    now = (clock.now, math.inf)
    due = sorted(order.irange((clock.now - overdue_after(clock),), now), key=_by_recency)
    return chain(due, order.irange(now, (math.inf,)))


def _once(agents: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for agent in agents:
        if agent not in seen:
            seen.add(agent)
            yield agent


def _by_recency(entry: _Entry) -> tuple[int, str]:
    return entry[1:]


def _in_seconds(clock: StreamClock, entries: Iterable[_Entry]) -> Iterator[_Entry]:
    """Put seconds in the place of the dues: these are comparable between clocks."""
    for due, recency, agent in entries:
        yield max(0.0, due - clock.now) * clock.pace, recency, agent
