from __future__ import annotations

import math
import random
from collections.abc import Iterator
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalesim_estimators import Estimate, Figures, Quality
from scalesim_estimators.nearest import nearest
from scalesim_estimators.quality import EVIDENCE, TRUST

TOLD = ("a", "b", "c")
NAMES = (*TOLD, "learned")


def say(quality: Quality, agent: str, now: float, *dues: float | None, confidence: float = 1.0) -> None:
    """Let the estimators say these dues, in order; those left out say nothing."""
    padded = [*dues, *[None] * (len(quality.names) - len(dues))]
    estimates = [None if due is None else Estimate(due, confidence, "said") for due in padded]
    quality.estimated((agent,), [(place, [one]) for place, one in enumerate(estimates)], now)


def blend(quality: Quality) -> Figures:
    return quality.figures()["blend"]


# Pairs


def test_without_a_pair_there_is_no_accuracy() -> None:
    quality = Quality(NAMES)
    quality.invoked("x", 1.0, 1.0)
    quality.invoked("x", 2.0, 1.0)
    figures = blend(quality)
    assert (figures.order_accuracy, figures.recency_accuracy, figures.pairs) == (None, None, 0)
    assert Figures().coverage is None and Figures().brier is None


def test_the_order_of_the_dues_held_before_the_first_invocation_is_judged() -> None:
    quality = Quality(NAMES)
    say(quality, "x", 0.0, 5.0)
    say(quality, "y", 0.0, 7.0)
    say(quality, "y", 5.0, 1.0)
    quality.invoked("x", 5.0, 1.0)
    say(quality, "x", 5.0, None)
    quality.invoked("y", 9.0, 1.0)
    assert (blend(quality).order_accuracy, blend(quality).pairs) == (1.0, 1)


@pytest.mark.parametrize(
    ("dues", "expected"),
    [((7.0, 5.0), 0.0), ((5.0, 5.0), 0.5), ((None, 5.0), 0.0), ((None, None), 0.5), ((5.0, 1.0), 1.0)],
)
def test_a_wrong_order_a_tie_a_missing_estimate_and_one_that_has_lapsed(
    dues: tuple[float | None, float | None], expected: float
) -> None:
    quality = Quality(NAMES)
    say(quality, "x", 0.0, dues[0])
    say(quality, "y", 0.0, dues[1])
    quality.invoked("x", 4.0, 1.0)
    quality.invoked("y", 5.0, 1.0)
    assert blend(quality).order_accuracy == expected


def test_invocations_at_the_same_clock_value_are_no_pair() -> None:
    quality = Quality(NAMES)
    quality.invoked("x", 1.0, 1.0)
    quality.invoked("y", 1.0, 1.0)
    assert blend(quality).pairs == 0
    quality.invoked("x", 2.0, 1.0)
    assert blend(quality).pairs == 0, "what was foreseen before 1 was x's invocation at 1"
    quality.invoked("z", 3.0, 1.0)
    quality.invoked("z", 3.0, 1.0)
    assert blend(quality).pairs == 3


def test_a_round_robin_is_where_recency_is_always_wrong() -> None:
    quality, now = Quality(NAMES), 0.0
    for _ in range(21):
        for agent in "vwxyz":
            quality.invoked(agent, now, 1.0)
            say(quality, agent, now, now + 5)
            now += 1
    figures = blend(quality)
    assert figures.order_accuracy is not None and figures.order_accuracy > 0.95
    assert figures.recency_accuracy is not None and figures.recency_accuracy < 0.05


def test_the_chance_is_the_share_of_right_orders_where_recency_says_the_opposite() -> None:
    """x calls again and again, and at last y, who was said to be next: against the first call alone, recency says
    nothing."""
    quality = Quality(NAMES)
    assert quality.chance() == 1.0
    for agent, due in (("x", 99.0), ("y", 50.0)):
        say(quality, agent, 0.0, due)
    for now in range(1, 13):
        quality.invoked("x", float(now), 1.0)
    quality.invoked("y", 13.0, 1.0)
    figures = blend(quality)
    assert (figures.pairs, figures.disputed, figures.won) == (12, 11, 0)
    assert quality.chance() == TRUST / (TRUST + 11)


def test_a_round_robin_wins_every_dispute() -> None:
    quality, now = Quality(NAMES), 0.0
    for _ in range(5):
        for agent in "vwxyz":
            quality.invoked(agent, now, 1.0)
            say(quality, agent, now, now + 5)
            now += 1
    assert blend(quality).won == blend(quality).disputed > 50
    assert quality.chance() == 1.0


def test_a_pair_whose_older_due_is_forgotten_is_left_out() -> None:
    quality = Quality(NAMES)
    say(quality, "x", 0.0, 1.0)
    say(quality, "y", 0.0, 2.0)
    quality.invoked("x", 1.0, 1.0)
    for step in range(1, 20):
        say(quality, "y", float(step), 2.0 + step)
    quality.invoked("y", 20.0, 1.0)
    assert blend(quality).pairs == 0


def test_the_window_slides() -> None:
    quality = Quality(NAMES, window=3)
    for step in range(50):
        dues = (1.0, 2.0) if step >= 40 else (2.0, 1.0)
        now = 10.0 * step
        for agent, due in zip("xy", dues, strict=True):
            say(quality, agent, now, now + due)
        quality.invoked("x", now + 1, 1.0)
        quality.invoked("y", now + 2, 1.0)
        if step == 39:
            assert blend(quality).right < 2
    assert blend(quality).right == 2
    assert (blend(quality).pairs, blend(quality).invocations) == (3, 3)


def test_a_released_agent_leaves_nothing_behind() -> None:
    quality = Quality(NAMES)
    say(quality, "x", 0.0, 1.0)
    quality.invoked("x", 1.0, 1.0)
    quality.forget("x")
    quality.invoked("y", 2.0, 1.0)
    quality.invoked("x", 3.0, 1.0)
    figures = blend(quality)
    assert (figures.order_accuracy, figures.pairs) == (0.75, 2), (
        "right for x before y, then a tie of two without estimate"
    )


def pairs(invocations: list[tuple[str, float]]) -> Iterator[tuple[int, int]]:
    """Yield the indices of every pair by the definition."""
    for first, second in combinations(range(len(invocations)), 2):
        (a, at), (b, bt) = invocations[first], invocations[second]
        since = [agent for agent, t in invocations[:second] if t >= at]
        if a != b and at < bt and second - first <= 32 and b not in since:
            yield first, second


def right(first: float, second: float) -> float:
    return 0.5 if first == second else float(first < second)


def ordered(first: float, second: float, by_recency: float) -> float:
    """Of two of which nothing is said recency decides."""
    return by_recency if first == second == math.inf else right(first, second)


dues = st.none() | st.integers(0, 9).map(float)


@given(
    st.lists(
        st.tuples(
            st.sampled_from("wxyz"),
            st.sampled_from([0.0, 1.0]),
            st.tuples(dues, dues, dues, dues),
            st.booleans(),
        ),
        max_size=40,
    )
)
def test_the_score_equals_the_definition(
    log: list[tuple[str, float, tuple[float | None, ...], bool]],
) -> None:
    quality, now = Quality(NAMES, always=NAMES, window=1000), 0.0
    history: list[tuple[float, str, tuple[float, ...]]] = []
    invocations: list[tuple[str, float]] = []
    for agent, passed, said, invoked in log:
        now += passed
        if invoked:
            quality.invoked(agent, now, 1.0)
            if (agent, now) not in invocations:
                invocations.append((agent, now))
        else:
            say(quality, agent, now, *said)
            history.append((now, agent, tuple(math.inf if due is None else due for due in said)))
    if any(len({t for t, a, _ in history if a == agent}) >= 8 for agent in "wxyz"):
        return

    def held(agent: str, before: float, heard: set[str]) -> float:
        """Return what the blend of those who are heard says: who is told of first, then who has learned."""
        rows = (row for t, a, row in reversed(history) if a == agent and t < before)
        row = [due if due >= before - 2 else math.inf for due in next(rows, (math.inf,) * 4)]
        told = min((due for name, due in zip(TOLD, row, strict=False) if name in heard), default=math.inf)
        return row[-1] if told == math.inf and "learned" in heard else told

    def last(agent: str, before: float) -> float:
        return max((t for a, t in invocations if a == agent and t < before), default=-math.inf)

    figures = quality.figures()
    counted = list(pairs(invocations))
    opposite: list[bool] = []
    for name in (*NAMES, "blend"):
        decided, with_it, without, recency = 0, 0.0, 0.0, 0.0
        for first, second in counted:
            (a, at), (b, _) = invocations[first], invocations[second]
            heard = {*TOLD} | {name} if name != "blend" else {*TOLD}
            together = held(a, at, heard), held(b, at, heard)
            alone = held(a, at, heard - {name}), held(b, at, heard - {name})
            if together != alone or name == "blend":
                by_recency = right(-last(a, at), -last(b, at))
                decided += 1
                with_it += ordered(*together, by_recency)
                without += ordered(*alone, by_recency)
                recency += by_recency
                if name == "blend" and {right(*together), by_recency} == {0.0, 1.0}:
                    opposite.append(right(*together) == 1.0)
        found = figures[name]
        assert (found.pairs, found.right, found.right_by_recency) == (decided, with_it, recency)
        assert found.right_without == (recency if name == "blend" else without)
    assert (blend(quality).disputed, blend(quality).won) == (len(opposite), sum(opposite))


@given(
    st.lists(st.sampled_from([1.0, 2.0, 3.0, math.inf]), min_size=4, max_size=4),
    st.lists(st.booleans(), min_size=4),
)
def test_the_nearest_due_is_the_smallest_of_those_told_else_what_is_learned(
    dues: list[float], admitted: list[bool]
) -> None:
    floor = 2.0
    valid = [due if due >= floor and heard else math.inf for due, heard in zip(dues, admitted, strict=False)]

    def best(values: list[float]) -> float:
        told = min(values[:3])
        return values[3] if told == math.inf else told

    found = nearest(dues, admitted, floor)
    assert found.due == best(valid)
    assert (found.whose == -1) == (found.due == math.inf)
    if found.whose >= 0:
        assert dues[found.whose] == found.due and admitted[found.whose]
        assert found.otherwise == best([math.inf if i == found.whose else due for i, due in enumerate(valid)])


# Forecasts


def test_an_invocation_settles_what_each_estimator_had_forecast() -> None:
    quality = Quality(NAMES)
    say(quality, "x", 0.0, 10.0, None, 14.0, confidence=0.8)
    quality.invoked("x", 10.0, 1.0)
    say(quality, "x", 10.0, 30.0, None, None, 18.0, confidence=0.6)
    quality.invoked("x", 20.0, 1.0)
    figures = quality.figures()
    assert figures["b"] == Figures(invocations=2)
    a, blended = figures["a"], figures["blend"]
    assert (a.coverage, a.lead_error, a.hit_rate) == (1.0, 5.0, 0.5)
    assert a.confidence == pytest.approx(0.7) and a.brier == pytest.approx((0.2**2 + 0.6**2) / 2)
    assert (figures["c"].coverage, figures["c"].lead_error, figures["c"].hit_rate) == (0.5, 4.0, 0.0)
    assert (blended.invocations, blended.lead_error, blended.hit_rate) == (2, 5.0, 0.5)
    assert figures["learned"].foreseen == 1, "what has lapsed was foreseen all the same"


@pytest.mark.parametrize(("late", "hits"), [(11.0, 2), (12.0, 1)])
def test_a_forecast_may_be_off_by_a_tenth_of_the_time_since_the_last_call(late: float, hits: int) -> None:
    quality = Quality(NAMES)
    quality.invoked("x", 0.0, 1.0)
    say(quality, "x", 0.0, 100.0)
    quality.invoked("x", 100.0 + late, 1.0)
    say(quality, "x", 100.0 + late, 101.0 + late)
    quality.invoked("x", 102.0 + late, 1.0)
    assert quality.figures()["a"].hits == hits


# Verdicts


def play(quality: Quality, calls: int, rng: random.Random, start: float, *errors: float) -> list[int]:
    """Let twelve agents call in turn, of which each estimator says when, wrong by up to its error; return the calls at
    which another set of estimators was admitted."""
    agents = [f"agent {number}" for number in range(12)]
    rng.shuffle(agents)
    changes = []
    for call in range(calls):
        now = start + call
        agent = agents[call % 12]
        if quality.invoked(agent, now, 1.0):
            changes.append(call)
        dues = [None if math.isinf(error) else now + 12 + rng.uniform(-error, error) for error in errors]
        say(quality, agent, now, *dues)
    return changes


def test_an_estimator_that_calls_agents_near_too_early_loses_its_say_and_gets_it_back_when_it_is_better() -> (
    None
):
    quality, rng = Quality(NAMES), random.Random(3)
    silent = math.inf
    play(quality, 300, rng, 0.0, 0.0, silent, 11.0)
    assert quality.admitted == [True, True, False, False]
    figures = quality.figures()
    assert figures["c"].pairs >= EVIDENCE
    assert (figures["c"].order_accuracy or 1) < (figures["c"].accuracy_without or 0)
    play(quality, 600, rng, 300.0, silent, silent, 0.5)
    assert quality.admitted == [True, True, True, False]
    assert quality.is_admitted("c") and not quality.is_admitted("learned")


def test_a_specialist_is_not_blamed_for_those_that_it_does_not_speak_of() -> None:
    quality = Quality(NAMES)
    for call in range(600):
        agent, now = f"agent {call % 12}", float(call)
        quality.invoked(agent, now, 1.0)
        say(quality, agent, now, now + 12, now + 12 if call % 12 == 5 else None)
    assert quality.is_admitted("b")


def test_what_is_learned_has_to_prove_itself() -> None:
    quality, rng = Quality(NAMES), random.Random(3)
    assert not quality.is_admitted("learned")
    assert play(quality, 600, rng, 0.0, math.inf, math.inf, math.inf, 0.5)
    assert quality.is_admitted("learned")


def test_what_is_guessed_is_not_heard_where_recency_is_right() -> None:
    quality, rng = Quality(NAMES), random.Random(3)
    for call in range(600):
        agent = f"agent {int(rng.paretovariate(0.5)) % 40}"  # some call all the time, some hardly ever
        quality.invoked(agent, float(call), 1.0)
        say(quality, agent, float(call), None, None, None, call + rng.uniform(1.0, 200.0))
    assert quality.figures()["learned"].pairs > 4 * EVIDENCE
    assert not quality.is_admitted("learned")


def test_who_is_always_heard_is_not_judged_and_nobody_without_evidence() -> None:
    quality = Quality(NAMES, always=("c",))
    play(quality, 600, random.Random(3), 0.0, 0.0, math.inf, 11.0)
    assert quality.is_admitted("c")
    short = Quality(NAMES)
    play(short, 16, random.Random(3), 0.0, 0.0, math.inf, 11.0)
    assert short.is_admitted("c")


def test_noise_does_not_go_back_and_forth() -> None:
    quality = Quality(NAMES)
    changes = play(quality, 6000, random.Random(3), 0.0, 500.0, math.inf, 500.0, 500.0)
    assert len(changes) < 15


def test_the_agents_whose_estimate_a_verdict_changes_are_named() -> None:
    quality, rng = Quality(NAMES), random.Random(3)
    say(quality, "elsewhere", 0.0, 5000.0)
    say(quality, "near", 0.0, 5000.0, None, 4000.0)
    agents = [f"agent {number}" for number in range(12)]
    for call in range(600):
        agent, now = agents[call % 12], float(call)
        if quality.invoked(agent, now, 1.0):
            named = quality.differing()
            assert not quality.is_admitted("c")
            assert "near" in named and "elsewhere" not in named
            return
        say(quality, agent, now, now + 12, None, now + rng.uniform(1, 24))
    pytest.fail("no verdict")


def test_after_a_verdict_so_many_agents_are_looked_at_as_may_be() -> None:
    quality, rng = Quality(NAMES), random.Random(3)
    for number in range(1000):
        say(quality, f"near {number}", 0.0, 5000.0, None, 4000.0)
    agents = [f"agent {number}" for number in range(12)]
    for call in range(600):
        agent, now = agents[call % 12], float(call)
        if quality.invoked(agent, now, 1.0):
            break
        say(quality, agent, now, now + 12, None, now + rng.uniform(1, 24))
    named: list[str] = []
    while quality.behind(-math.inf):
        some = quality.differing(100)
        assert len(some) <= 100
        named += some
    assert {f"near {number}" for number in range(1000)} <= set(named) and len(set(named)) == len(named)


def test_memory_stays_bounded() -> None:
    quality, rng = Quality(NAMES), random.Random(5)
    for step in range(3000):
        agent = rng.choice("xyz")
        say(quality, agent, float(step), *(rng.uniform(0, 9) for _ in NAMES))
        quality.invoked(rng.choice("xyz"), float(step), 1.0)
    assert max(len(quality._notes.held(agent)) for agent in "xyz") <= 9
    assert len(quality._realised) <= 32
    for figures in quality.figures().values():
        assert figures.pairs <= 256 * 32 and figures.invocations <= 256
