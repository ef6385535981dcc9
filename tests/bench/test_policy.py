"""Eviction by true dues against Belady's optimum, as libcachesim computes it."""

import pytest

from bench.policy.misses import REFERENCES, by_due, by_reference
from bench.policy.traces import TRACES, Trace

MOST_OVER_BELADY = 1.02


@pytest.mark.parametrize("share", [0.5, 0.4])
@pytest.mark.parametrize("name", TRACES)
def test_eviction_by_due_misses_at_most_2_percent_more_than_belady(name: str, share: float) -> None:
    trace = TRACES[name](1)
    capacity = int(share * trace.agents)
    best = by_reference("Belady", trace, capacity)
    assert 0 < best <= by_due(trace, capacity) <= MOST_OVER_BELADY * best
    assert best < by_reference("LRU", trace, capacity)


def test_the_references_are_what_they_are_taken_for() -> None:
    # One agent more than fits, in turn: recency is always wrong, foresight loses one place in eleven.
    trace = Trace("turns", 11, tuple((f"a{number % 11}",) for number in range(220)))
    misses = {policy: by_reference(policy, trace, 10) for policy in REFERENCES}
    assert misses["LRU"] == 220
    assert misses["Belady"] == 11 + 209 // 10 == by_due(trace, 10)
    assert all(misses["Belady"] <= count <= 220 for count in misses.values())


@pytest.mark.parametrize("name", TRACES)
def test_traces_are_drawn_by_their_seed(name: str) -> None:
    assert TRACES[name](2) == TRACES[name](2)
    if name != "cyclic":
        assert TRACES[name](2) != TRACES[name](3)
