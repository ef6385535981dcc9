"""How often a cache of equal items misses: libcachesim's policies, and ours by true dues."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from types import MappingProxyType

import libcachesim

from bench.policy.traces import Trace, told, upcoming
from scalesim_adapters.dueorder import DueOrder
from scalesim_adapters.dues import DueTable

# An item's size in bytes: libcachesim cuts caches into parts by bytes, and a part must hold an item.
ITEM = 1000
HASH_POWER = 16
CLOCK = "steps"


def _part(share: float, items: int) -> float:
    """Return the share of a cache that a part of it takes: one item at least."""
    return max(share, 1.01 / items)


REFERENCES: Mapping[str, Callable[[int], libcachesim.CacheBase]] = MappingProxyType(
    {
        "LRU": lambda items: libcachesim.LRU(items * ITEM, hashpower=HASH_POWER),
        "ARC": lambda items: libcachesim.ARC(items * ITEM, hashpower=HASH_POWER),
        "S3-FIFO": lambda items: libcachesim.S3FIFO(
            items * ITEM, hashpower=HASH_POWER, small_size_ratio=_part(0.1, items)
        ),
        "SIEVE": lambda items: libcachesim.Sieve(items * ITEM, hashpower=HASH_POWER),
        "W-TinyLFU": lambda items: libcachesim.WTinyLFU(
            items * ITEM, hashpower=HASH_POWER, window_size=_part(0.01, items)
        ),
        "Belady": lambda items: libcachesim.Belady(items * ITEM, hashpower=HASH_POWER),
    }
)


def by_reference(policy: str, trace: Trace, capacity: int) -> int:
    """Count the misses of one of libcachesim's policies."""
    cache = REFERENCES[policy](capacity)
    calls = trace.calls()
    numbers = {agent: number for number, agent in enumerate(dict.fromkeys(calls))}
    requests = (
        libcachesim.Request(obj_size=ITEM, obj_id=numbers[agent], next_access_vtime=following)
        for agent, following in zip(calls, upcoming(calls), strict=True)
    )
    return sum(not cache.get(request) for request in requests)


def by_due(trace: Trace, capacity: int) -> int:
    """Count the misses of the plug-ins' own order, where after each call the step of the agent's next one is told."""
    table = DueTable()
    order = DueOrder(table)
    table.apply({"type": "snapshot", "clocks": {CLOCK: (0.0, 1.0)}, "dues": {}}, 0.0)
    cached: set[str] = set()
    serial, misses = count(), 0
    for now, agent, due in told(trace):
        if agent not in cached:
            misses += 1
            if len(cached) == capacity:
                order.refresh()
                farthest = order.farthest()
                assert farthest is not None
                order.discard(farthest)
                cached.remove(farthest)
            cached.add(agent)
        place = None if due is None else (CLOCK, float(due))
        table.apply({"type": "delta", "clocks": {CLOCK: (float(now), 1.0)}, "dues": {agent: place}}, 0.0)
        turn = next(serial)
        order.put(agent, turn, turn)
    return misses
