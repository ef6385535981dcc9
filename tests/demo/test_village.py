from __future__ import annotations

from collections import Counter

import pytest

from bench.workloads.base import Step, active_limit
from bench.workloads.persona_text import first_name, persona_text
from bench.workloads.personas import VILLAGERS
from bench.workloads.places import PLACES
from bench.workloads.village import Village
from scalesim_client.codec import pack_event
from scalesim_client.events import (
    ActivityStarted,
    AgentActivated,
    Event,
    InvocationStarted,
    PathDeclared,
    PlanDeclared,
    StepAdvanced,
)
from scalesim_estimators import default_estimators

STEPS = 26


@pytest.fixture(scope="module", params=[1, 2, 3])
def village(request: pytest.FixtureRequest) -> Village:
    return Village(request.param, STEPS)


@pytest.fixture(scope="module")
def steps(village: Village) -> list[Step]:
    return list(village.steps())


def said(village: Village, steps: list[Step]) -> list[Event]:
    return [*village.opening, *(event for step in steps for event in (*step.before, *step.after))]


def test_has_25_distinct_people_at_known_places() -> None:
    assert len(VILLAGERS) == 25
    assert len({first_name(p.name) for p in VILLAGERS}) == 25
    assert {p.work for p in VILLAGERS} <= set(PLACES)
    for field in ("trade", "traits", "roots", "project", "worry", "habit"):
        assert len({getattr(p, field) for p in VILLAGERS}) == 25


def test_personas_are_long_and_repeat_nothing() -> None:
    texts = [persona_text(p, seed=1) for p in VILLAGERS]
    assert min(map(len, texts)) > 6000
    for text in texts:
        lines = [line for line in text.splitlines() if line]
        assert len(set(lines)) == len(lines)
    assert len({text[:64] for text in texts}) == 25


def test_same_seed_same_village(village: Village, steps: list[Step]) -> None:
    assert list(village.steps()) == steps
    again = Village(village._seed, STEPS)
    assert list(again.steps()) == steps
    assert again.personas == village.personas
    assert again.opening == village.opening


def test_other_seeds_give_other_villages(village: Village, steps: list[Step]) -> None:
    assert list(Village(village._seed + 100, STEPS).steps()) != steps


def test_enough_calls_and_never_more_than_a_fifth_at_once(village: Village, steps: list[Step]) -> None:
    calls = [len(step.calls) for step in steps]
    assert sum(calls) >= 100
    assert max(calls) <= active_limit(len(village.personas)) == 5
    assert all(len({call.agent for call in step.calls}) == len(step.calls) for step in steps)


def test_every_cause_occurs_and_every_memory_is_new(steps: list[Step]) -> None:
    calls = [call for step in steps for call in step.calls]
    causes = Counter(call.cause for call in calls)
    assert causes["activity"] > causes["path"] > 5
    assert causes["interaction"] > 5
    assert len({call.memory for call in calls}) == len(calls)


def test_events_are_of_the_contract_and_declare_no_order(village: Village, steps: list[Step]) -> None:
    events = said(village, steps)
    for event in events:
        pack_event(event)
        assert getattr(event, "agent", "agnes") in village.personas
    assert not any(isinstance(event, PlanDeclared | InvocationStarted) for event in events)
    assert any(isinstance(event, PathDeclared) for event in events)


def test_who_calls_says_what_it_does_next_and_who_waits_says_so(steps: list[Step]) -> None:
    for step in steps:
        acting = [event.agent for event in step.after if isinstance(event, ActivityStarted)]
        assert acting[: len(step.calls)] == [call.agent for call in step.calls]
        assert len(set(acting)) == len(acting)


def test_news_reaches_only_along_its_graph(village: Village, steps: list[Step]) -> None:
    edges = {e.path: set(map(tuple, e.edges or [])) for e in village.opening if isinstance(e, PathDeclared)}
    reached: dict[str, set[str]] = {}
    for event in said(village, steps):
        if isinstance(event, AgentActivated):
            already = reached.setdefault(event.path, set())
            assert not already or any((teller, event.agent) in edges[event.path] for teller in already)
            already.add(event.agent)
    assert any(len(agents) == 6 for agents in reached.values())


def test_events_alone_foretell_most_calls(village: Village, steps: list[Step]) -> None:
    estimators = default_estimators()
    for event in village.opening:
        estimators.observe(event, 0.0)
    foreseen = calls = 0
    for step in steps:
        now = float(step.now - 1)
        for call in step.calls:
            estimate = estimators.estimate(call.agent, now - 1.5)
            foreseen += estimate is not None and estimate.distance(now) <= 1.0
            calls += 1
        estimators.observe(StepAdvanced(now=now + 1), now + 1)
        for event in step.before:
            estimators.observe(event, now + 1)
        for call in step.calls:
            estimators.observe(InvocationStarted(agent=call.agent), now + 1)
        for event in step.after:
            estimators.observe(event, now + 1)
    assert foreseen / calls > 0.9
