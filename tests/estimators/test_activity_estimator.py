from __future__ import annotations

import pytest

from scalesim_client.events import (
    ActivityStarted,
    AgentEvent,
    AgentIdled,
    AgentReleased,
    AgentWoken,
    InvocationFinished,
    InvocationStarted,
    StepAdvanced,
)
from scalesim_estimators import ActivityEstimator, Estimate, WokenEstimator

ENDINGS = [InvocationStarted, AgentIdled, AgentReleased]


def test_an_activity_is_due_at_its_end() -> None:
    activity = ActivityEstimator()
    assert list(activity.observe(ActivityStarted(agent="a", for_=5.0), 10.0)) == ["a"]
    assert list(activity.observe(ActivityStarted(agent="b", until=12.0), 10.0)) == ["b"]
    assert activity.estimate("a") == Estimate(15.0, 0.9, "activity ends")
    assert activity.estimate("b") == Estimate(12.0, 0.9, "activity ends")
    assert activity.estimate("never heard of") is None


def test_a_later_activity_replaces_the_earlier_one() -> None:
    activity = ActivityEstimator()
    activity.observe(ActivityStarted(agent="a", for_=5.0), 0.0)
    activity.observe(ActivityStarted(agent="a", for_=0.0), 3.0)
    estimate = activity.estimate("a")
    assert estimate is not None
    assert estimate.due == 3.0


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_ends_an_activity(ending: type[AgentEvent]) -> None:
    activity = ActivityEstimator()
    activity.observe(ActivityStarted(agent="a", for_=5.0), 0.0)
    assert list(activity.observe(ending(agent="a"), 1.0)) == ["a"]
    assert activity.estimate("a") is None
    assert list(activity.observe(ending(agent="a"), 1.0)) == []


def test_events_of_no_concern_change_nothing() -> None:
    activity = ActivityEstimator()
    activity.observe(ActivityStarted(agent="a", for_=5.0), 0.0)
    for event in (StepAdvanced(now=9.0), AgentWoken(agent="a"), InvocationFinished(agent="a")):
        assert list(activity.observe(event, 9.0)) == []
    assert activity.estimate("a") == Estimate(5.0, 0.9, "activity ends")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_woken_agent_is_due_now_until_its_invocation(ending: type[AgentEvent]) -> None:
    woken = WokenEstimator()
    assert list(woken.observe(AgentWoken(agent="a"), 7.0)) == ["a"]
    assert woken.estimate("a") == Estimate(7.0, 1.0, "woken")
    assert list(woken.observe(ending(agent="a"), 8.0)) == ["a"]
    assert woken.estimate("a") is None


def test_what_is_overdue_is_passed_over() -> None:
    activity, woken = ActivityEstimator(), WokenEstimator()
    activity.observe(ActivityStarted(agent="a", until=5.0), 0.0)
    woken.observe(AgentWoken(agent="a"), 5.0)
    for estimator in (activity, woken):
        assert estimator.estimate("a", 5.0) is not None
        assert estimator.estimate("a", 5.1) is None


def test_of_many_that_start_at_once_each_has_its_own_due_and_just_these_are_named() -> None:
    activity = ActivityEstimator(whole=True)
    starts = [ActivityStarted(agent=f"a{number}", until=number / 2) for number in range(3000)]
    listener = activity.listener(ActivityStarted)
    assert listener is not None
    assert listener(starts, 0.0) == [start.agent for start in starts]
    for number in range(3000):
        assert activity.estimate(f"a{number}") == Estimate((number + 1) // 2, 0.9, "activity ends")
