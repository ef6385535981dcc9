from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from estimator_events import AGENTS, Feed, everything, feeds
from hypothesis import given
from hypothesis import strategies as st

from scalesim_client.events import ActivityStarted, AgentIdled, AgentWoken, InvocationStarted, PlanDeclared
from scalesim_estimators import (
    ActivityEstimator,
    Blend,
    DeclaredEstimator,
    Estimate,
    HistoryEstimator,
    Quality,
    default_estimators,
)

TOLD = ["declared", "activity", "interaction", "path", "woken"]
NAMES = [*TOLD, "history"]
graces = st.sampled_from([0.0, 1.0, 5.0])


def silence(blend: Blend, *names: str) -> None:
    """Take these estimators' say, as a verdict does, and give the others theirs."""
    blend.quality.admitted = [name not in names for name in blend.quality.names]


def test_what_is_told_is_admitted_and_declared_comes_first_in_ties() -> None:
    blend = default_estimators()
    assert [estimator.name for estimator in blend.estimators] == NAMES
    assert blend.quality.admitted == [True] * 5 + [False]
    blend.observe(ActivityStarted(agent="a", until=5.0), 0.0)
    blend.observe(PlanDeclared(agents=["a"], at=5.0), 0.0)
    assert blend.estimate("a") == Estimate(5.0, 1.0, "declared step")


def test_who_is_not_admitted_has_no_say_but_goes_on_observing() -> None:
    blend = default_estimators()
    blend.observe(ActivityStarted(agent="a", until=9.0), 0.0)
    silence(blend, "declared")
    blend.observe(PlanDeclared(agents=["a"], at=5.0), 0.0)
    assert blend.estimate("a") == Estimate(9.0, 0.9, "activity ends")
    silence(blend)
    assert blend.estimate("a") == Estimate(5.0, 1.0, "declared step")


def test_what_is_learned_has_a_say_where_nothing_is_told() -> None:
    blend = default_estimators()
    for now in (0.0, 5.0, 10.0):
        blend.observe(InvocationStarted(agent="a"), now)
    assert blend.estimate("a") is None
    silence(blend)
    assert blend.estimate("a") == Estimate(15.0, 0.5, "history: period 5")
    blend.observe(ActivityStarted(agent="a", until=19.0), 10.0)
    assert blend.estimate("a") == Estimate(19.0, 0.9, "activity ends")
    silence(blend, "activity")
    assert blend.estimate("a") == Estimate(15.0, 0.5, "history: period 5")


def test_what_a_stream_says_anew_replaces_what_it_told_and_not_what_was_learned() -> None:
    earlier = default_estimators()
    silence(earlier, "path")
    for now in (0.0, 5.0, 10.0):
        earlier.observe(InvocationStarted(agent="a"), now)
    earlier.observe(ActivityStarted(agent="a", until=12.0), 10.0)
    blend = default_estimators("step", earlier)
    assert blend.quality is earlier.quality
    assert blend.estimate("a") == Estimate(15.0, 0.5, "history: period 5")


def test_on_a_clock_of_steps_dues_are_whole() -> None:
    for clock, due in (("step", 6.0), ("sim_seconds", 5.25)):
        blend = default_estimators(clock)
        blend.observe(ActivityStarted(agent="a", until=5.25), 0.0)
        assert blend.estimate("a", due) == Estimate(due, 0.9, "activity ends")
        assert blend.estimate("a", due + 0.5) is None


def test_names_must_differ_and_be_those_that_are_judged() -> None:
    with pytest.raises(ValueError, match="same name"):
        Blend([ActivityEstimator(), ActivityEstimator()], HistoryEstimator())
    with pytest.raises(ValueError, match="not of"):
        Blend([ActivityEstimator()], HistoryEstimator(), Quality(["path", "history"]))


def test_what_has_lapsed_is_named_once_and_renewed_with_what_comes_next() -> None:
    blend = default_estimators()
    blend.observe(PlanDeclared(agents=["a", "b"], at=5.0), 0.0)
    blend.observe(ActivityStarted(agent="a", until=9.0), 0.0)
    for agent in "ab":
        assert blend.renew([agent], 0.0) == [Estimate(5.0, 1.0, "declared step")]
    assert blend.lapsed(5.0) == []
    assert blend.lapsed(6.0) == ["a", "b"]
    assert blend.lapsed(6.0) == []
    assert blend.renew(["a"], 7.0, earliest=6.0) == [Estimate(9.0, 0.9, "activity ends")]
    assert blend.renew(["b"], 7.0, earliest=6.0) == [Estimate(5.0, 1.0, "declared step")], "overdue"
    blend.forget("a")
    assert blend.lapsed(100.0) == []


def test_no_more_is_watched_for_its_lapse_than_there_are_agents() -> None:
    blend = default_estimators()
    for number in range(1000):
        for agent in blend.observe(
            ActivityStarted(agent=f"agent {number % 3}", until=1e6 + number), float(number)
        ):
            blend.renew([agent], float(number))
        assert len(blend.quality._notes._passing) <= 2 * 3 + 64
    assert blend.lapsed(2e6) == ["agent 1", "agent 2", "agent 0"]


def test_not_before_raises_every_due_except_of_who_is_woken() -> None:
    blend = default_estimators()
    blend.observe(ActivityStarted(agent="a", until=2.0), 0.0)
    blend.observe(ActivityStarted(agent="b", until=30.0), 0.0)
    blend.observe(PlanDeclared(agents=["a", "b"], probabilities=[0.0, 0.0], not_before=20.0), 0.0)
    assert blend.estimate("a") == Estimate(20.0, 0.9, "activity ends (not before)")
    assert blend.estimate("a", earliest=10.0) == blend.estimate("a"), "what is raised is not overdue"
    assert blend.estimate("a", earliest=21.0) is None
    assert blend.estimate("b") == Estimate(30.0, 0.9, "activity ends")
    blend.observe(AgentWoken(agent="a"), 3.0)
    assert blend.estimate("a", earliest=3.0) == Estimate(3.0, 1.0, "woken")


def test_what_is_overdue_gives_way_to_what_comes_next() -> None:
    blend = default_estimators()
    blend.observe(PlanDeclared(agents=["a"], at=5.0), 0.0)
    blend.observe(ActivityStarted(agent="a", until=9.0), 0.0)
    assert blend.estimate("a", earliest=5.0) == Estimate(5.0, 1.0, "declared step")
    assert blend.estimate("a", earliest=6.0) == Estimate(9.0, 0.9, "activity ends")
    assert blend.estimate("a", earliest=10.0) is None


def test_an_idle_agent_is_far_whatever_was_foreseen() -> None:
    blend = default_estimators()
    blend.observe(PlanDeclared(agents=["a"], at=5.0), 0.0)
    blend.observe(ActivityStarted(agent="a", until=9.0), 0.0)
    blend.observe(AgentWoken(agent="a"), 0.0)
    assert list(blend.observe(AgentIdled(agent="a"), 1.0)) == ["a"]
    assert blend.estimate("a") is None


def holds(blend: Blend, silent: set[str], dues: dict[str, float]) -> float | None:
    """Return the smallest due that is told, else what is learned; `silent` has no say."""
    heard = {name: due for name, due in dues.items() if name not in silent}
    learned = heard.pop("history", None)
    return min(heard.values(), default=learned)


@given(feeds(everything, max_size=40), st.sets(st.sampled_from(NAMES)), graces)
def test_the_blend_is_the_minimum_and_no_distance_is_negative(
    feed: Feed, silent: set[str], grace: float
) -> None:
    blend = default_estimators("sim_seconds")
    declared = next(e for e in blend.estimators if isinstance(e, DeclaredEstimator))
    silence(blend, *silent)
    known: dict[str, Estimate | None] = dict.fromkeys(AGENTS)
    for event, now in feed:
        changed = blend.observe(event, now)
        assert len(changed) == len(set(changed))
        for agent in AGENTS:
            estimate = blend.estimate(agent)
            voices = {e.name: e.estimate(agent) for e in blend.estimators}
            bound = declared.not_before(agent) or 0.0
            dues = {name: max(voice.due, bound) for name, voice in voices.items() if voice is not None}
            assert (None if estimate is None else estimate.due) == holds(blend, silent, dues)
            late = blend.estimate(agent, now - grace)
            after = {name: due for name, due in dues.items() if due >= now - grace}
            held = holds(blend, silent, after)
            assert held is None or (
                late is not None and (late.due <= held or after.keys() - silent == {"history"})
            )
            assert late is None or late.due >= now - grace
            for value in (estimate, late):
                if value is not None:
                    assert value.distance(now) >= 0
                    assert math.isfinite(value.due)
                    assert 0 <= value.confidence <= 1
                    assert value.basis.split()[0].rstrip(":") in NAMES
            assert agent in changed or estimate == known[agent], "a change must be reported"
            known[agent] = estimate


@given(feeds(everything))
def test_an_invocation_leaves_nothing_due_by_activity_or_wake_up(feed: Feed) -> None:
    blend = default_estimators()
    for event, now in feed:
        blend.observe(event, now)
        if isinstance(event, InvocationStarted):
            estimate = blend.estimate(event.agent)
            assert estimate is None or estimate.basis.split()[0] not in {"activity", "woken"}


REPLAY = """
import random
from scalesim_client.events import *
from scalesim_estimators import default_estimators
rng, blend = random.Random(3), default_estimators()
names = [f"agent {i}" for i in range(60)]
blend.observe(PathDeclared(edges=[tuple(rng.sample(names, 2)) for _ in range(200)]), 0.0)
blend.observe(PlanDeclared(agents=names[:9], at=99.0), 0.0)
for now in range(300):
    agent = rng.choice(names)
    xy, to = ((rng.randrange(40), rng.randrange(40)) for _ in range(2))
    events = [AgentMoved(agent=agent, xy=xy, destination=to, speed=1.0, vision=4.0), AgentWoken(agent=agent),
              InvocationStarted(agent=agent), ActivityStarted(agent=agent, for_=9.0),
              AgentActivated(agent=agent)]
    print(list(blend.observe(rng.choice(events), float(now))))
print([blend.ask(name) for name in names])
"""


def test_nothing_depends_on_the_hashing_of_names() -> None:
    def replay(seed: str) -> str:
        command = [sys.executable, "-c", REPLAY]
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            command, env=environment, cwd=Path(__file__).parent, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    first = replay("1")
    assert "interaction with" in first and "history: " in first
    assert replay("2") == first
