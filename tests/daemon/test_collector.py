"""Whole collections of garbage, and how much of the time they take."""

import gc
from collections.abc import Iterator
from time import perf_counter

import pytest

from scalesim_client.events import (
    AgentActivated,
    AgentMoved,
    AgentWoken,
    Event,
    InvocationStarted,
    PathDeclared,
    PlanDeclared,
    StepAdvanced,
)
from scalesim_daemon import collector
from scalesim_daemon.collector import collected_seldom
from scalesim_daemon.gate import Closed, Opened, Restated, Said, Stream
from scalesim_daemon.population import Population
from scalesim_estimators import Blend, Quality
from scalesim_estimators.base import ByType
from scalesim_estimators.roster import Roster

OBJECTS = 200_000


@pytest.fixture
def wholes() -> Iterator[list[float]]:
    """When whole collections ended."""
    ended: list[float] = []

    def note(phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and info["generation"] == 2:
            ended.append(perf_counter())

    gc.callbacks.append(note)
    yield ended
    gc.callbacks.remove(note)


def grown() -> list[list[int]]:
    """Return so much that Python looks through all of it several times meanwhile."""
    return [[number] for number in range(OBJECTS)]


def test_what_grows_is_looked_through_once_and_then_not_for_a_thousand_times_as_long(
    wholes: list[float],
) -> None:
    with collected_seldom():
        wholes.clear()
        kept = [grown() for _ in range(10)]
        seldom = len(wholes)
    wholes.clear()
    kept += [grown() for _ in range(10)]
    assert seldom <= 1 < len(wholes)


def test_whole_collections_come_again_when_their_time_has_come(
    wholes: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "SHARE", 1e9)
    with collected_seldom():
        wholes.clear()
        kept = [grown() for _ in range(10)]
    assert len(wholes) > 1
    assert len(kept) == 10


def test_what_was_there_at_first_is_not_looked_through_and_is_again_afterwards() -> None:
    before = gc.get_threshold()
    with collected_seldom():
        assert gc.get_freeze_count() > 0
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == before


def test_a_stream_that_ends_leaves_no_garbage_that_only_a_collection_finds() -> None:
    population, stream = Population(), Stream("src", "sim", 1, "step")
    moves = [AgentMoved(agent=f"a{place}", xy=(place, 0.0), vision=1.5) for place in range(9)]
    events: list[Event] = [
        StepAdvanced(now=1.0),
        *moves,
        AgentWoken(agent="a0"),
        InvocationStarted(agent="a1"),
    ]
    events += [PlanDeclared(agents=["a2"]), PathDeclared(nodes=["a3", "a4"]), AgentActivated(agent="a3")]
    gc.collect()
    before = parts()
    gc.disable()
    try:
        population.apply([Opened(stream), Said(stream, events)], 0.0)
        population.apply([Restated(stream, [(event, 1.0) for event in moves], 2.0)], 0.0)
        assert parts() > before
        population.apply([Closed(stream)], 0.0)
        population.take_changes()
        assert parts() == before
    finally:
        gc.enable()


def parts() -> int:
    """Return how many blends, estimators and the like there are."""
    return sum(isinstance(one, Blend | ByType | Roster | Quality) for one in gc.get_objects())
