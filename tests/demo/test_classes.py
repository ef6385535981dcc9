"""The three small workloads: each is of one class, and says nothing that it doesn't keep."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.workloads.base import Step, Workload
from bench.workloads.classes import Loners, Relay, Walkers
from scalesim_client.events import ActivityStarted, AgentActivated, AgentMoved, Event, PathDeclared

AGENTS = 12
CROWD = 100
STEPS = 60

Make = Callable[[int, int, int], Workload]


def opened(workload: Workload) -> list[tuple[int, Event]]:
    """Return all events with the clock value at which they are said."""
    said = [(0, event) for event in workload.opening]
    for step in workload.steps():
        said += [(step.now, event) for event in (*step.before, *step.after)]
    return said


@pytest.mark.parametrize("make", [Loners, Walkers, Relay])
def test_a_seed_gives_the_same_course_again_and_another_seed_another(make: Make) -> None:
    steps = list(make(1, STEPS, AGENTS).steps())
    assert list(make(1, STEPS, AGENTS).steps()) == steps
    assert list(make(2, STEPS, AGENTS).steps()) != steps
    assert [step.now for step in steps] == list(range(1, STEPS + 1))
    callers = {call.agent for step in steps for call in step.calls}
    assert callers == set(make(1, STEPS, AGENTS).personas)
    assert all(len({call.agent for call in step.calls}) == len(step.calls) for step in steps)


def test_loners_call_when_their_activity_ends_and_only_then() -> None:
    workload = Loners(1, STEPS, AGENTS)
    ends = {
        (event.agent, event.until)
        for _, event in opened(workload)
        if isinstance(event, ActivityStarted) and event.until is not None and event.until <= STEPS
    }
    assert {(call.agent, step.now) for step in workload.steps() for call in step.calls} == ends


def test_walkers_call_at_the_end_of_their_walk_or_two_at_a_time() -> None:
    workload = Walkers(1, STEPS, AGENTS)
    until = {
        event.agent: event.until
        for _, event in opened(workload)[: 2 * AGENTS]
        if isinstance(event, ActivityStarted)
    }
    causes = []
    for step in workload.steps():
        met = [call for call in step.calls if call.cause == "interaction"]
        assert len(met) != 1
        assert all(until[call.agent] == step.now for call in step.calls if call.cause == "activity")
        until |= {event.agent: event.until for event in step.after if isinstance(event, ActivityStarted)}
        assert {event.agent for event in step.after if isinstance(event, AgentMoved)} == callers_of(step)
        causes += [call.cause for call in step.calls]
    assert 0.2 < causes.count("interaction") / len(causes) < 0.8


def test_a_relay_calls_whom_a_declared_item_has_reached() -> None:
    graphs: dict[str, set[tuple[str, str]]] = {}
    reached: dict[str, set[str]] = {}
    for step in Relay(1, STEPS, AGENTS).steps():
        activated = {event.agent for event in step.before if isinstance(event, AgentActivated)}
        assert activated == callers_of(step)
        for event in step.before:
            if isinstance(event, PathDeclared):
                graphs[event.path] = {(one, two) for one, two in event.edges or []}
            elif isinstance(event, AgentActivated):
                before = reached.setdefault(event.path, set())
                assert not before or any((one, event.agent) in graphs[event.path] for one in before)
                before.add(event.agent)
    assert sum(len(agents) == AGENTS for agents in reached.values()) > STEPS // 8


@pytest.mark.parametrize("make", [Loners, Walkers])
@pytest.mark.parametrize("active", [0.05, 0.2, 0.5, 1.0])
def test_about_the_share_that_is_asked_for_calls(make: type[Loners | Walkers], active: float) -> None:
    calls = [len(step.calls) for step in make(1, STEPS, CROWD, active).steps()]
    # The first activities all begin at once, and so their first ends come late.
    settled = calls[STEPS // 2 :]
    assert 0.8 * active < sum(settled) / len(settled) / CROWD < 1.2 * active


def test_a_busy_ground_has_meetings_and_ends_of_activities() -> None:
    causes = [call.cause for step in Walkers(1, STEPS, CROWD, 0.2).steps() for call in step.calls]
    assert 0.3 < causes.count("interaction") / len(causes) < 0.7


def callers_of(step: Step) -> set[str]:
    return {call.agent for call in step.calls}
