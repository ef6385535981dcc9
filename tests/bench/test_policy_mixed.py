"""Items of drawn sizes and costs: eviction by rent against GreedyDual-Size-Frequency, with and without costs."""

import pytest

from bench.policy.items import KINDS, Item, drawn
from bench.policy.mixed import lost_by_policy, lost_by_reference
from bench.policy.traces import TRACES, Trace


def agents(trace: Trace) -> list[str]:
    return sorted(set(trace.calls()))


@pytest.mark.parametrize(("name", "kind"), [*(("zipf", kind) for kind in KINDS), ("village", "both kinds")])
def test_eviction_by_rent_is_never_worse_than_greedy_dual(name: str, kind: str) -> None:
    trace = TRACES[name](1)
    items = drawn(kind, agents(trace), 1)
    capacity = int(0.4 * sum(item.size for item in items.values()))
    ours = lost_by_policy("by rent", trace, items, capacity)
    assert ours < 0.9 * lost_by_policy("GDSF, seconds", trace, items, capacity)
    assert ours < 0.9 * lost_by_reference("GDSF, misses", trace, items, capacity)


def test_what_is_cheap_for_its_size_makes_room_for_what_is_dear() -> None:
    trace = Trace("turns", 10, tuple((f"a{step % 10}",) for step in range(300)))
    items = {f"a{number}": Item(100, 1.0 if number % 2 else 0.1) for number in range(10)}
    by_rent = lost_by_policy("by rent", trace, items, 600)
    assert by_rent < 0.7 * lost_by_policy("by due", trace, items, 600)
    assert by_rent < lost_by_policy("GDSF, seconds", trace, items, 600)


def test_with_equal_costs_greedy_dual_decides_as_libcachesim_does() -> None:
    trace = TRACES["zipf"](1)
    items = {name: Item(item.size, 1.0) for name, item in drawn("prefixes", agents(trace), 1).items()}
    capacity = int(0.3 * sum(item.size for item in items.values()))
    theirs = lost_by_reference("GDSF, misses", trace, items, capacity)
    assert lost_by_policy("GDSF, seconds", trace, items, capacity) == pytest.approx(theirs, rel=0.01)


@pytest.mark.parametrize("policy", ["GDSF, seconds", "by due", "by rent"])
def test_what_is_larger_than_the_cache_is_lost_each_time_and_moves_nobody(policy: str) -> None:
    trace = Trace("turns", 2, tuple(("small", "large") for _ in range(10)))
    items = {"small": Item(100, 1.0), "large": Item(1000, 2.0)}
    assert lost_by_policy(policy, trace, items, 500) == 1.0 + 10 * 2.0
