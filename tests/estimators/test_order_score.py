from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalesim_estimators import OrderScore


def test_without_a_pair_there_is_no_accuracy() -> None:
    score = OrderScore()
    score.invoked("a", 1.0)
    score.invoked("a", 2.0)
    assert score.accuracy is None
    assert score.recency_accuracy is None
    assert score.pairs == 0


def test_the_order_of_the_dues_held_before_the_first_invocation_is_judged() -> None:
    score = OrderScore()
    score.estimated("a", 5.0, 0.0)
    score.estimated("b", 7.0, 0.0)
    score.estimated("b", 1.0, 5.0)
    score.invoked("a", 5.0)
    score.estimated("a", None, 5.0)
    score.invoked("b", 9.0)
    assert (score.accuracy, score.pairs) == (1.0, 1)


def test_a_wrong_order_a_tie_and_a_missing_estimate() -> None:
    for dues, expected in (((7.0, 5.0), 0.0), ((5.0, 5.0), 0.5), ((None, 5.0), 0.0), ((None, None), 0.5)):
        score = OrderScore()
        for agent, due in zip("ab", dues, strict=True):
            score.estimated(agent, due, 0.0)
        score.invoked("a", 1.0)
        score.invoked("b", 2.0)
        assert score.accuracy == expected


def test_invocations_at_the_same_clock_value_are_no_pair() -> None:
    score = OrderScore()
    score.invoked("a", 1.0)
    score.invoked("b", 1.0)
    assert score.pairs == 0
    score.invoked("a", 2.0)
    assert score.pairs == 0, "what was foreseen before 1 was a's invocation at 1"
    score.invoked("c", 3.0)
    score.invoked("c", 3.0)
    assert score.pairs == 3


def test_a_round_robin_is_where_recency_is_always_wrong() -> None:
    score, agents, now = OrderScore(), "abcde", 0.0
    for agent in agents:
        score.invoked(agent, now)
        score.estimated(agent, now + 5, now)
        now += 1
    for _ in range(20):
        for agent in agents:
            score.invoked(agent, now)
            score.estimated(agent, now + 5, now)
            now += 1
    assert score.accuracy is not None
    assert score.accuracy > 0.95
    assert score.recency_accuracy is not None
    assert score.recency_accuracy < 0.05


def test_a_pair_whose_older_due_is_forgotten_is_left_out() -> None:
    score = OrderScore()
    score.estimated("a", 1.0, 0.0)
    score.estimated("b", 2.0, 0.0)
    score.invoked("a", 1.0)
    for step in range(1, 20):
        score.estimated("b", 2.0 + step, float(step))
    score.invoked("b", 20.0)
    assert score.pairs == 0


def test_the_window_slides() -> None:
    score = OrderScore(window=3)
    for step in range(50):
        dues = (1.0, 2.0) if step >= 40 else (2.0, 1.0)
        now = 10.0 * step
        for agent, due in zip("ab", dues, strict=True):
            score.estimated(agent, now + due, now)
        score.invoked("a", now + 1)
        score.invoked("b", now + 2)
        if step == 39:
            assert score.accuracy is not None
            assert score.accuracy < 0.5
    assert score.accuracy is not None
    assert score.accuracy > 0.5
    assert score.pairs == 3


def test_a_released_agent_leaves_nothing_behind() -> None:
    score = OrderScore()
    score.estimated("a", 1.0, 0.0)
    score.invoked("a", 1.0)
    score.forget("a")
    score.invoked("b", 2.0)
    score.invoked("a", 3.0)
    assert (score.accuracy, score.pairs) == (0.75, 2), (
        "right for a before b, then a tie of two without estimate"
    )


Log = list[tuple[str, float, float | None, bool]]


def pairs(invocations: list[tuple[str, float]]) -> Iterator[tuple[int, int]]:
    """Yield the indices of every pair by the definition."""
    for first, second in combinations(range(len(invocations)), 2):
        (a, at), (b, bt) = invocations[first], invocations[second]
        since = [agent for agent, t in invocations[:second] if t >= at]
        if a != b and at < bt and second - first <= 64 and b not in since:
            yield first, second


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"),
            st.sampled_from([0.0, 1.0]),
            st.none() | st.integers(0, 9).map(float),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_the_score_equals_the_definition(log: Log) -> None:
    score, now = OrderScore(window=1000), 0.0
    history: list[tuple[float, str, float]] = []
    invocations: list[tuple[str, float]] = []
    for agent, passed, due, invoked in log:
        now += passed
        if invoked:
            score.invoked(agent, now)
            if (agent, now) not in invocations:
                invocations.append((agent, now))
        else:
            score.estimated(agent, due, now)
            history.append((now, agent, math.inf if due is None else due))
    if any(len({t for t, a, _ in history if a == agent}) >= 8 for agent in "abcd"):
        return

    def held(agent: str, before: float) -> float:
        return next((d for t, a, d in reversed(history) if a == agent and t < before), math.inf)

    def last(agent: str, before: float) -> float:
        return max((t for a, t in invocations if a == agent and t < before), default=-math.inf)

    def right(first: float, second: float) -> float:
        return 0.5 if first == second else float(first < second)

    counted = list(pairs(invocations))
    estimates = recency = 0.0
    for first, second in counted:
        (a, at), (b, _) = invocations[first], invocations[second]
        estimates += right(held(a, at), held(b, at))
        recency += right(-last(a, at), -last(b, at))
    assert score.pairs == len(counted)
    if counted:
        assert score.accuracy == pytest.approx(estimates / len(counted))
        assert score.recency_accuracy == pytest.approx(recency / len(counted))


def test_memory_stays_bounded() -> None:
    score, rng = OrderScore(), random.Random(5)
    for step in range(5000):
        agent = rng.choice("abc")
        score.estimated(agent, rng.uniform(0, 9), float(step))
        score.invoked(rng.choice("abc"), float(step))
    held = score._changes.values()
    assert max(len(changes) for changes in held) <= 8
    assert score.pairs <= 256 * 64
