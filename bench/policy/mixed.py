"""What misses cost where items differ in size: libcachesim's policies, GreedyDual-Size-Frequency by cost, and ours."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import count
from types import MappingProxyType
from typing import Protocol

import libcachesim

from bench.policy.items import Item
from bench.policy.misses import HASH_POWER
from bench.policy.traces import Trace, told, upcoming
from scalesim_daemon.worth import rent

Items = Mapping[str, Item]

BY_SIZE: Mapping[str, Callable[[int], libcachesim.CacheBase]] = MappingProxyType(
    {
        "LRU": lambda size: libcachesim.LRU(size, hashpower=HASH_POWER),
        "GDSF, misses": lambda size: libcachesim.GDSF(size, hashpower=HASH_POWER),
        "Belady-size": lambda size: libcachesim.BeladySize(size, hashpower=HASH_POWER),
    }
)


def lost_by_reference(policy: str, trace: Trace, items: Items, capacity: int) -> float:
    """Return the seconds that one of libcachesim's policies loses; it knows sizes in bytes, and no costs."""
    cache = BY_SIZE[policy](capacity)
    # A next use that comes at once is infinitely small to Belady-size: all are told one later.
    calls = trace.calls()
    numbers = {agent: number for number, agent in enumerate(dict.fromkeys(calls))}
    lost = 0.0
    for agent, following in zip(calls, upcoming(calls), strict=True):
        size, seconds = items[agent]
        request = libcachesim.Request(obj_size=size, obj_id=numbers[agent], next_access_vtime=following + 1)
        if not cache.get(request):
            lost += seconds
    return lost


class Policy(Protocol):
    """Decides who of the cached ones goes first."""

    def called(self, agent: str, due: float) -> None:
        """The agent has called, is cached now, and calls next in step `due` (infinity for never)."""
        ...

    def evict(self, now: int) -> str:
        """Give up one of the cached agents in step `now`, and return it."""
        ...


class GreedyDual:
    """GreedyDual-Size-Frequency as Cherkasova describes it (HPL-98-69R1), with the seconds of a miss as its cost: the
    lowest of (clock + calls x cost / size) goes first, and the clock becomes what it had. An agent's calls are counted
    from its latest miss on. With costs of 1 these are libcachesim's decisions."""

    def __init__(self, items: Items) -> None:
        self._items = items
        self._clock = 0.0
        self._calls: Counter[str] = Counter()
        self._current: dict[str, tuple[float, int]] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._serial = count()

    def called(self, agent: str, due: float) -> None:
        """Count the call."""
        self._calls[agent] += 1
        size, seconds = self._items[agent]
        entry = self._clock + self._calls[agent] * seconds / size, next(self._serial)
        self._current[agent] = entry
        heapq.heappush(self._heap, (*entry, agent))

    def evict(self, now: int) -> str:
        """Give up the agent with the lowest priority."""
        while True:
            priority, serial, agent = heapq.heappop(self._heap)
            if self._current.get(agent) == (priority, serial):
                break
        self._clock = priority
        del self._calls[agent], self._current[agent]
        return agent


class ByRank:
    """The highest `rank` of (distance in steps, item) goes first; of equals who called last, as in `DueOrder`."""

    def __init__(self, items: Items, rank: Callable[[float, Item], float]) -> None:
        self._items = items
        self._rank = rank
        self._cached: dict[str, tuple[float, int]] = {}
        self._serial = count()

    def called(self, agent: str, due: float) -> None:
        """Note what is told of the next call."""
        self._cached[agent] = due, next(self._serial)

    def evict(self, now: int) -> str:
        """Give up the farthest by rank."""

        def place(agent: str) -> tuple[float, int]:
            due, serial = self._cached[agent]
            return self._rank(due - now, self._items[agent]), serial

        agent = max(self._cached, key=place)
        del self._cached[agent]
        return agent


def by_due(distance: float, item: Item) -> float:
    """Rank by distance alone."""
    return distance


def by_rent(distance: float, item: Item) -> float:
    """Rank by what the item takes for as long, per second that it saves."""
    return rent(distance, *item)


POLICIES: Mapping[str, Callable[[Items], Policy]] = MappingProxyType(
    {
        "GDSF, seconds": GreedyDual,
        "by due": lambda items: ByRank(items, by_due),
        "by rent": lambda items: ByRank(items, by_rent),
    }
)


def lost_by_policy(policy: str, trace: Trace, items: Items, capacity: int) -> float:
    """Return the seconds lost where one of `POLICIES` makes room for every missed item that isn't larger than
    the whole cache."""
    decides = POLICIES[policy](items)
    cached: set[str] = set()
    free, lost = capacity, 0.0
    for now, agent, due in told(trace):
        if agent not in cached:
            size, seconds = items[agent]
            lost += seconds
            if size > capacity:
                continue
            while free < size:
                gone = decides.evict(now)
                cached.remove(gone)
                free += items[gone].size
            cached.add(agent)
            free -= size
        decides.called(agent, math.inf if due is None else due)
    return lost
