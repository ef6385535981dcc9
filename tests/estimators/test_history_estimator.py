from __future__ import annotations

import math
import random
from statistics import median_low

import pytest
from estimator_events import AGENTS, Feed, everything, feeds
from hypothesis import example, given
from hypothesis import strategies as st

from scalesim_client.events import AgentIdled, AgentReleased, ClockKind, InvocationStarted
from scalesim_estimators import HistoryEstimator
from scalesim_estimators.gaps import KEPT, Gaps

HOUR = 3600.0
DAY = 24 * HOUR


def invoked(history: HistoryEstimator, agent: str, *at: float) -> None:
    for now in at:
        history.observe(InvocationStarted(agent=agent), now)


def due(history: HistoryEstimator, agent: str, earliest: float = -math.inf) -> float | None:
    estimate = history.estimate(agent, earliest)
    return None if estimate is None else estimate.due


def basis(history: HistoryEstimator, agent: str) -> str:
    estimate = history.estimate(agent)
    return "" if estimate is None else estimate.basis


# Periods


@given(st.floats(0, 1e6), st.floats(1e-3, 1e6), st.integers(3, 40))
def test_a_steady_period_is_foreseen_from_the_second_call_on(first: float, period: float, calls: int) -> None:
    history = HistoryEstimator()
    for call in range(calls):
        now = first + call * period
        if call >= 2:
            assert due(history, "a") == pytest.approx(now)
            assert basis(history, "a") == f"history: period {period:.4g}" or call == 2
        invoked(history, "a", now)
    estimate = history.estimate("a")
    assert estimate is not None
    assert estimate.confidence == pytest.approx((min(calls - 2, 8) + 0.5) / (min(calls - 2, 8) + 2), abs=0.05)


@given(st.lists(st.integers(0, 12), min_size=2, max_size=5, unique=True))
def test_a_cycle_of_gaps_is_foreseen_once_it_has_come_round_three_times(gaps: list[int]) -> None:
    gaps = [2**gap for gap in gaps]
    history, now = HistoryEstimator(), 0.0
    for call in range(6 * len(gaps)):
        if call > 3 * len(gaps):
            assert due(history, "a") == now
        invoked(history, "a", now)
        now += gaps[call % len(gaps)]


def test_bursts_are_foreseen_with_the_pause_between_them() -> None:
    history, now = HistoryEstimator(), 0.0
    for _ in range(4):
        invoked(history, "a", now, now + 1, now + 2, now + 3)
        now += 50
    now -= 50
    assert due(history, "a") == now + 50
    assert basis(history, "a") == "history: gap 47 after 1"


def test_a_late_agent_is_due_after_the_gaps_that_were_longer() -> None:
    history = HistoryEstimator()
    invoked(history, "a", 0, 4, 8, 20, 24, 28)
    assert due(history, "a", 33.0) == 40.0
    assert history.estimate("a", 41.0) is None


# Hours of the day


def by_the_clock(kind: ClockKind) -> HistoryEstimator:
    """An agent that calls a few times between nine and ten, at no certain minute, and once in the evening."""
    history, rng = HistoryEstimator(kind), random.Random(2)
    for day in range(8):
        minutes = sorted(rng.sample(range(60), 4))
        invoked(history, "a", *(day * DAY + 9 * HOUR + 60 * minute for minute in minutes))
        invoked(history, "a", day * DAY + 20 * HOUR + 60 * rng.randrange(60))
    return history


def test_hours_of_the_day_are_learned_where_the_clock_counts_seconds() -> None:
    history = by_the_clock("sim_seconds")
    assert history._hours is not None
    due = history._last[0] + history._hours.gap[0]
    assert 8 * DAY + 9 * HOUR <= due <= 8 * DAY + 10 * HOUR
    assert by_the_clock("step")._hours is None


# Who follows whom


def test_a_follower_is_foreseen_when_its_leader_calls() -> None:
    history, rng, now = HistoryEstimator(), random.Random(1), 0.0
    for _ in range(30):
        now += rng.randint(10, 200)
        invoked(history, "leader", now)
        invoked(history, "other", now + rng.randint(1, 2))
        now += 3
        invoked(history, "follower", now)
    now += 77
    before = due(history, "follower")
    changed = history.observe(InvocationStarted(agent="leader"), now)
    assert "follower" in changed
    assert due(history, "follower") == now + 3 != before
    assert basis(history, "follower") == "history: follows leader"


def test_no_other_is_named_in_the_place_of_a_leader_that_has_left() -> None:
    history = HistoryEstimator()
    for round_ in range(6):
        for agent, after in (("leader", 0.0), ("follower", 3.0)):
            invoked(history, agent, 10.0 * round_ + (round_ % 2) + after)
    invoked(history, "leader", 60.0)
    assert basis(history, "follower") == "history: follows leader"
    history.observe(AgentReleased(agent="leader"), 61.0)
    for number in range(40):
        invoked(history, f"other {number}", 61.0)
        if number < 20:
            history.observe(AgentReleased(agent=f"other {number}"), 61.0)
    assert basis(history, "follower") == "history: follows one that has left"


def test_who_only_happens_to_come_after_is_no_follower() -> None:
    history, rng = HistoryEstimator(), random.Random(1)
    for now in range(2000):
        invoked(history, f"agent {rng.randrange(12)}", float(now))
    for agent, calls in enumerate(history._calls):
        assert not list(history._followers.usual(agent, max(2.0, (calls - 1) / 2)))


# What is usual


def test_of_two_without_a_record_of_their_own_the_one_that_called_longer_ago_is_nearer() -> None:
    history = HistoryEstimator()
    for number in range(8):
        invoked(history, f"agent {number}", float(number), 20.0 + number)
    invoked(history, "early", 22.0)
    invoked(history, "recent", 27.0)
    assert (due(history, "early"), due(history, "recent")) == (42.0, 47.0)
    assert basis(history, "early") == "history: usual gap 20"


def test_with_the_first_gap_of_all_many_are_foreseen_one_after_another() -> None:
    history, many = HistoryEstimator(), [f"agent {number}" for number in range(1000)]
    for agent in many:
        invoked(history, agent, 0.0)
    changed = history.observe(InvocationStarted(agent=many[-1]), 20.0)
    assert 2 < len(changed) <= 66
    foreseen = set(changed)
    for number in range(20):
        changed = history.observe(InvocationStarted(agent=many[number]), 20.0)
        assert len(changed) <= 66
        foreseen.update(changed)
    assert foreseen == set(many)
    assert {due(history, agent) for agent in many[20:-1]} == {20.0}


def test_who_is_late_by_its_own_gaps_is_due_after_a_longer_one_of_others() -> None:
    history = HistoryEstimator()
    invoked(history, "slow", 0, 30, 60)
    invoked(history, "quick", 60, 62, 64)
    assert due(history, "quick") == 66.0
    estimate = history.estimate("quick", 67.0)
    assert estimate is not None
    assert (estimate.due, estimate.basis) == (94.0, "history: late")


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(-1, 60))
def test_the_usual_gap_is_the_lower_median_of_those_that_are_long_enough(
    lengths: list[int], least: int
) -> None:
    gaps = Gaps()
    for length in lengths:
        gaps.add(length)
    longer = [length for length in lengths if length >= least]
    assert gaps.usual(least) == (median_low(longer) if longer else None)


def test_old_gaps_are_forgotten() -> None:
    gaps = Gaps()
    for length in range(2000):
        gaps.add(float(length))
    assert gaps.usual(0.0) == 2000 - KEPT + (KEPT - 1) // 2


# What is not known


def test_nothing_is_foreseen_of_unknown_new_idle_and_released_agents() -> None:
    history = HistoryEstimator()
    assert history.estimate("a") is None
    invoked(history, "a", 1)
    invoked(history, "a", 1)
    assert history.estimate("a") is None
    invoked(history, "a", 2)
    assert due(history, "a") == 3
    assert history.observe(AgentIdled(agent="a"), 2.0) == ("a",)
    assert history.estimate("a") is None
    invoked(history, "a", 3)
    assert due(history, "a") == 4
    assert history.observe(AgentReleased(agent="a"), 3.0) == ("a",)
    assert history.estimate("a") is None
    assert history.observe(AgentIdled(agent="a"), 3.0) == history.observe(AgentReleased(agent="a"), 3.0) == ()


def test_an_idle_follower_is_not_foreseen() -> None:
    history = HistoryEstimator()
    for round_ in range(5):
        invoked(history, "leader", 10.0 * round_)
        invoked(history, "follower", 10.0 * round_ + 1)
    history.observe(AgentIdled(agent="follower"), 42.0)
    assert history.observe(InvocationStarted(agent="leader"), 50.0) == ["leader"]
    assert history.estimate("follower") is None


# Always


clocks = st.sampled_from(["step", "sim_seconds", "wall_seconds"])
times = st.lists(
    st.tuples(st.sampled_from(AGENTS), st.sampled_from([0.0, 1.0, 3600.0, 1e5, 1e300]) | st.floats(0, 1e6)),
    max_size=60,
)


@given(times, clocks, st.floats(0, 1e6))
@example(
    [("a", 1.1234119714936242), ("a", 948575.01), ("c", 100000.0), ("c", 0.2), ("a", 948576.0)], "step", 0.0
)
def test_dues_are_finite_not_before_what_is_asked_and_the_same_every_time(
    calls: list[tuple[str, float]], clock: ClockKind, grace: float
) -> None:
    one, two = HistoryEstimator(clock), HistoryEstimator(clock)
    now = 0.0
    for agent, passed in calls:
        now += passed
        event = InvocationStarted(agent=agent)
        assert list(one.observe(event, now)) == list(two.observe(event, now))
        for name in AGENTS:
            for earliest in (-math.inf, now - grace, now + grace):
                estimate = one.estimate(name, earliest)
                assert estimate == two.estimate(name, earliest)
                if estimate is not None:
                    assert math.isfinite(estimate.due) and estimate.due >= earliest
                    assert 0 < estimate.confidence < 1
                    assert estimate.basis.startswith("history: ")


@given(feeds(everything))
def test_what_changes_is_reported_and_only_calls_teach(feed: Feed) -> None:
    history, calls = HistoryEstimator(), HistoryEstimator()
    known = {agent: history.estimate(agent) for agent in AGENTS}
    for event, now in feed:
        changed = history.observe(event, now)
        assert len(changed) == len(set(changed))
        if isinstance(event, InvocationStarted | AgentIdled | AgentReleased):
            calls.observe(event, now)
        for agent in AGENTS:
            estimate = history.estimate(agent)
            assert agent in changed or estimate == known[agent], "a change must be reported"
            known[agent] = estimate
    assert known == {agent: calls.estimate(agent) for agent in AGENTS}


def test_memory_per_agent_is_bounded() -> None:
    history, rng = HistoryEstimator("sim_seconds"), random.Random(4)
    for now in range(20_000):
        invoked(history, f"agent {rng.randrange(100)}", 300.0 * now)
    assert len(history.agents) == 100 and len(history._recent) == 4 and len(history._gaps._by_length) == KEPT
    assert history._hours is not None and max(history._calls) <= 64
    for agent in range(100):
        assert len(history._period.gaps(agent)) == 16 and history._followers.of(agent) == 8
        hours = history._hours._hours[agent]
        assert hours is not None and sum(hours._counts) < 2 * 28 * DAY / 300 / 100
