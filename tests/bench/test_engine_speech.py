from __future__ import annotations

from functools import cache
from random import Random

import pytest

from bench.engine.classes import CLASSES
from bench.engine.speech import (
    LATEST,
    Speech,
    foretold,
    noisy_gap,
    nothing,
    own,
    record,
    reversed_gap,
    true_gap,
)
from bench.engine.variants import FULL
from bench.workloads.base import Workload
from scalesim_client.events import ActivityStarted, Event

STEPS = 30
SPEECHES = {name: variant.speech for name, variant in FULL.items() if variant.speech is not None}


@cache
def drawn(name: str) -> Workload:
    return record(CLASSES[name](1, STEPS))


def told(name: str, speech: Speech, seed: int = 1) -> Workload:
    return speech(drawn(name), Random(seed))


def said(workload: Workload) -> list[list[Event]]:
    """Return what is said at the start, and at each step."""
    return [list(workload.opening), *([*step.before, *step.after] for step in workload.steps())]


def announced(workload: Workload) -> list[tuple[int, str, float]]:
    """Return when each announcement of a next call is made, of whom, and for when."""
    found = []
    for now, events in enumerate(said(workload)):
        for event in events:
            assert isinstance(event, ActivityStarted)
            assert event.until is not None
            found.append((now, event.agent, event.until))
    return found


def next_call(workload: Workload, agent: str, after: int) -> int | None:
    steps = (step.now for step in workload.steps() if step.now > after)
    callers = {step.now: {call.agent for call in step.calls} for step in workload.steps()}
    return next((now for now in steps if agent in callers[now]), None)


@pytest.mark.parametrize("speech", SPEECHES.values(), ids=SPEECHES)
@pytest.mark.parametrize("name", CLASSES)
def test_whatever_is_told_the_calls_are_the_same_and_so_is_what_is_told_the_second_time(
    name: str, speech: Speech
) -> None:
    one, two = told(name, speech), told(name, speech)
    assert [(step.now, step.calls) for step in one.steps()] == [
        (step.now, step.calls) for step in drawn(name).steps()
    ]
    assert (one.simulation, one.personas) == (drawn(name).simulation, drawn(name).personas)
    assert said(one) == said(two)


@pytest.mark.parametrize("name", CLASSES)
def test_the_simulations_own_words_and_none(name: str) -> None:
    assert said(told(name, own)) == said(drawn(name))
    assert any(said(drawn(name)))
    assert not any(said(told(name, nothing)))


@pytest.mark.parametrize("name", CLASSES)
def test_the_clairvoyant_tells_every_next_call_when_the_last_one_was_served(name: str) -> None:
    workload = told(name, foretold(true_gap))
    announcements = announced(workload)
    calls = {(step.now, call.agent) for step in drawn(name).steps() for call in step.calls}
    assert {(now, agent) for now, agent, _ in announcements if now} == calls
    assert {agent for now, agent, _ in announcements if not now} == set(workload.personas)
    for now, agent, until in announcements:
        assert until == (next_call(workload, agent, now) or STEPS + 1)


def test_the_adversary_turns_the_order_round() -> None:
    workload = told("independent", foretold(reversed_gap))
    for now, agent, until in announced(workload):
        gap = (next_call(workload, agent, now) or STEPS + 1) - now
        assert until - now == LATEST + 1 - gap


def test_noise_is_off_by_at_most_its_share_and_by_as_much_either_way() -> None:
    true, off = (
        announced(told("independent", foretold(true_gap))),
        announced(told("independent", foretold(noisy_gap(0.5)))),
    )
    errors = [(until - due) / (due - now) for (now, _, due), (_, _, until) in zip(true, off, strict=True)]
    assert -0.5 <= min(errors) < -0.4
    assert 0.4 < max(errors) <= 0.5
    assert abs(sum(errors) / len(errors)) < 0.1
