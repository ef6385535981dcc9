"""Posts that spread: who reads was told of, when it would, and nobody reads twice what it has seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.workloads.base import Step
from bench.workloads.diffusion import GRAPHS, HOP, Diffusion, Followers
from scalesim_client.events import AgentActivated, PathDeclared

AGENTS = 120
STEPS = 50

Draw = Callable[[int, int], Followers]


def steps_of(draw: Draw, active: float = 0.2, seed: int = 1) -> list[Step]:
    return list(Diffusion(draw(AGENTS, 1), seed, STEPS, active=active).steps())


@pytest.fixture(params=GRAPHS)
def draw(request: pytest.FixtureRequest) -> Draw:
    return GRAPHS[request.param]


def test_a_seed_gives_the_same_course_again_and_another_seed_another(draw: Draw) -> None:
    assert steps_of(draw) == steps_of(draw)
    assert steps_of(draw, seed=2) != steps_of(draw)


def test_whoever_reads_was_declared_to_at_that_step(draw: Draw) -> None:
    expected: dict[int, set[tuple[str, str]]] = {}
    for step in steps_of(draw):
        reached = {(e.agent, e.path) for e in step.before if isinstance(e, AgentActivated)}
        assert len(reached) == len(step.before)
        assert reached == expected.pop(step.now, set())
        assert {agent for agent, _ in reached} == {call.agent for call in step.calls if call.cause == "path"}
        declared = {event.path: event for event in step.after if isinstance(event, PathDeclared)}
        for path, event in declared.items():
            assert event.edges
            assert event.hop >= HOP
            assert not any(path == waiting for others in expected.values() for _, waiting in others)
            expected.setdefault(step.now + int(event.hop), set()).update(
                (reader, path) for _, reader in event.edges
            )


def test_posts_go_to_followers_and_come_from_who_calls(draw: Draw) -> None:
    followers = draw(AGENTS, 1)
    for step in steps_of(draw):
        callers = {call.agent for call in step.calls}
        assert len(callers) == len(step.calls)
        for event in step.after:
            if isinstance(event, PathDeclared):
                assert all(one in callers and two in followers[one] for one, two in event.edges or [])
            else:
                assert isinstance(event, AgentActivated)
                assert event.agent in callers


@pytest.mark.parametrize("active", [0.05, 0.2, 0.5])
def test_nearly_as_many_call_as_may_and_never_more(draw: Draw, active: float) -> None:
    calls = [len(step.calls) for step in steps_of(draw, active)[HOP:]]
    assert max(calls) <= active * AGENTS
    assert 0.75 * active * AGENTS < sum(calls) / len(calls)


def test_an_item_reaches_everybody_once() -> None:
    chain = {"a": ["b", "c"], "b": ["c"], "c": ["a", "b"], "d": []}
    diffusion = Diffusion(chain, 1, 3 * HOP, active=1.0, passing=1.0, sources=["a"])
    read = [(call.agent, step.now) for step in diffusion.steps() for call in step.calls]
    first = [(agent, now) for agent, now in read if now in (1, 1 + HOP, 1 + 2 * HOP) and agent != "a"]
    assert sorted(first) == [("b", 1 + HOP), ("b", 1 + 2 * HOP), ("c", 1 + HOP), ("c", 1 + 2 * HOP)]


def test_who_finds_a_step_full_reads_in_the_next_and_is_told_so() -> None:
    star = {"hub": [f"a{number}" for number in range(9)]} | {f"a{number}": [] for number in range(9)}
    steps = list(Diffusion(star, 1, 12, active=0.4, sources=["hub"]).steps())
    hops = [event.hop for event in steps[0].after if isinstance(event, PathDeclared)]
    assert hops == [3.0, 4.0, 5.0]
    assert [len([call for call in step.calls if call.cause == "path"]) for step in steps[3:6]] == [3, 3, 3]


def test_names_of_paths_come_again() -> None:
    steps = steps_of(GRAPHS["small world"])
    declared = [event.path for step in steps for event in step.after if isinstance(event, PathDeclared)]
    assert len(set(declared)) < len(declared) / 4
