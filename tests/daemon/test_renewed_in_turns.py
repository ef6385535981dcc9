"""What one event changes of many agents is renewed in turns, and comes to what renewing all at once does."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from scalesim_client.events import (
    ActivityStarted,
    AgentActivated,
    AgentIdled,
    AgentMoved,
    AgentReleased,
    Event,
    InvocationFinished,
    InvocationStarted,
    PathDeclared,
    PlanDeclared,
    StepAdvanced,
)
from scalesim_daemon.gate import Closed, Opened, Restated, Said, Stream
from scalesim_daemon.population import RENEWED_AT_ONCE, Population
from tests.daemon.still import open_stream, say, still_sidecar

STREAM = Stream("src", "sim", 1, "step")
MANY = 5 * RENEWED_AT_ONCE // 2


@pytest.fixture
def population() -> Population:
    population = Population()
    population.apply([Opened(STREAM)], 0.0)
    return population


def tell(population: Population, *events: Event, of: Stream = STREAM) -> set[str]:
    """Say events; return whose due was renewed and has changed."""
    population.take_changes()
    population.apply([Said(of, events)], 0.0)
    return set(population.take_changes().dues)


def turns(population: Population) -> list[int]:
    """Go on until nothing is left; return how many dues each turn has changed."""
    changed = []
    while population.behind:
        population.apply((), 0.0)
        changed.append(len(population.take_changes().dues))
    return changed


def due(population: Population, agent: str) -> float | None:
    found = population.board.get(f"sim/{agent}")
    return None if found is None else found.at


def plan(number: int = MANY) -> PlanDeclared:
    return PlanDeclared(agents=[f"a{place}" for place in range(number)])


def test_a_plan_of_many_is_renewed_in_turns_those_first_that_call_first(population: Population) -> None:
    assert tell(population, plan()) == {f"sim/a{place}" for place in range(RENEWED_AT_ONCE)}
    assert turns(population) == [RENEWED_AT_ONCE, MANY - 2 * RENEWED_AT_ONCE]
    assert [due(population, f"a{place}") for place in range(MANY)] == [float(place) for place in range(MANY)]


def test_however_much_is_said_until_changes_are_taken_no_more_others_are_renewed(
    population: Population,
) -> None:
    population.apply([Said(STREAM, [plan()])], 0.0)
    for agent in range(9):
        population.apply([Said(STREAM, [ActivityStarted(agent=f"b{agent}", until=3.0)])], 0.0)
    assert len(population.take_changes().dues) == RENEWED_AT_ONCE + 9
    assert turns(population) == [RENEWED_AT_ONCE, MANY - 2 * RENEWED_AT_ONCE]


def test_who_waits_behind_another_has_its_turn_whoever_speaks_first(population: Population) -> None:
    other = Stream("other", "elsewhere", 1, "step")
    population.apply([Opened(other)], 0.0)
    for plans, stream in ((plan(10 * MANY), STREAM), (plan(10), other)):
        population.apply([Said(stream, [plans])], 0.0)
    for _ in range(2):
        population.take_changes()
        for stream in (STREAM, other):
            population.apply([Said(stream, [ActivityStarted(agent="x", until=3.0)])], 0.0)
    assert population.board.get("elsewhere/a9") is not None and population.behind


def test_who_is_spoken_of_does_not_wait(population: Population) -> None:
    tell(population, plan())
    last = f"a{MANY - 1}"
    assert f"sim/{last}" in tell(population, ActivityStarted(agent=last, until=3.0))
    assert due(population, last) == 3.0 and population.behind
    turns(population)
    assert due(population, last) == 3.0


def test_all_that_one_message_says_of_its_agents_is_renewed_with_it(population: Population) -> None:
    activities = [ActivityStarted(agent=f"a{place}", until=9.0) for place in range(MANY)]
    assert len(tell(population, *activities)) == MANY and not population.behind


def test_dues_lapse_in_turns(population: Population) -> None:
    tell(population, *[ActivityStarted(agent=f"a{place}", until=2.0) for place in range(MANY)])
    tell(population, PlanDeclared(agents=[f"a{place}" for place in range(MANY)], at=50.0))
    turns(population)
    for now in range(1, 4):
        tell(population, StepAdvanced(now=float(now)))
    assert len(tell(population, StepAdvanced(now=4.0))) <= RENEWED_AT_ONCE
    turns(population)
    assert {due(population, f"a{place}") for place in range(MANY)} == {50.0}


def test_a_snapshot_of_many_is_renewed_in_turns(population: Population) -> None:
    tell(population, *[ActivityStarted(agent=f"a{place}", until=9.0) for place in range(MANY)])
    events = [(ActivityStarted(agent=f"a{place}", until=7.0), None) for place in range(1, MANY)]
    population.take_changes()
    population.apply([Restated(STREAM, events, 1.0)], 0.0)
    assert len(population.take_changes().dues) <= RENEWED_AT_ONCE + 1
    assert due(population, "a0") is None and due(population, f"a{MANY - 1}") == 9.0
    assert max(turns(population)) <= RENEWED_AT_ONCE
    assert {due(population, f"a{place}") for place in range(1, MANY)} == {7.0}


def test_until_their_turn_comes_those_are_foreseen_whom_a_snapshot_plans_once_more(
    population: Population,
) -> None:
    tell(population, plan())
    turns(population)
    population.apply([Restated(STREAM, [(plan(MANY - 1), 0.0)], 0.0)], 0.0)
    assert len(population.board) == MANY and population.behind
    assert max(turns(population)) <= RENEWED_AT_ONCE
    assert len(population.board) == MANY - 1 and due(population, f"a{MANY - 1}") is None


def test_a_clock_that_goes_back_voids_what_is_left_to_do(population: Population) -> None:
    tell(population, StepAdvanced(now=5.0), plan())
    assert population.behind
    tell(population, StepAdvanced(now=1.0))
    assert turns(population) == [] and len(population.board) == 0


def test_who_is_released_meanwhile_stays_gone(population: Population) -> None:
    last = f"a{MANY - 1}"
    tell(population, plan())
    tell(population, AgentReleased(agent=last))
    turns(population)
    assert due(population, last) is None and due(population, f"a{MANY - 2}") == MANY - 2


def test_a_stream_that_closes_leaves_nothing_to_do(population: Population) -> None:
    tell(population, plan())
    population.apply([Closed(STREAM)], 0.0)
    assert not population.behind and len(population.board) == 0


def test_a_source_with_much_to_renew_does_not_keep_others_from_their_turn(population: Population) -> None:
    other = Stream("other", "elsewhere", 1, "step")
    population.apply([Opened(other)], 0.0)
    tell(population, plan(10 * RENEWED_AT_ONCE))
    tell(population, plan(RENEWED_AT_ONCE // 2), of=other)
    population.apply((), 0.0)
    tell(population, plan(10 * RENEWED_AT_ONCE))
    assert population.board.get(f"elsewhere/a{RENEWED_AT_ONCE // 2 - 1}") is not None


def test_a_crowd_that_never_stands_still_does_not_keep_others_estimators_from_their_turn(
    population: Population,
) -> None:
    other, nodes = Stream("other", "elsewhere", 1, "step"), [f"n{place}" for place in range(3_000)]
    population.apply([Opened(other)], 0.0)
    crowd = [AgentMoved(agent=f"a{place}", xy=(place / 100, 0.0), vision=50.0) for place in range(200)]
    tell(population, *crowd)
    tell(population, PathDeclared(nodes=nodes), AgentActivated(agent="n0"), of=other)
    for place in range(0, 200, 10):
        steps = [AgentMoved(agent=one.agent, xy=(1.0, 0.0), vision=50.0) for one in crowd[place : place + 10]]
        tell(population, *steps)
    assert population.behind and population.board.get("elsewhere/n2999") is not None


def test_a_verdict_renews_in_turns(population: Population) -> None:
    rng, quality = random.Random(3), population.qualities()["src"]
    tell(population, *[ActivityStarted(agent=f"a{place}", until=1e6) for place in range(MANY)])
    for call in range(2000):
        now, agent = float(call + 1), f"a{int(rng.paretovariate(0.5)) % 40}"
        tell(population, StepAdvanced(now=now))
        calls = [InvocationStarted(agent=agent), InvocationFinished(agent=agent)]
        renewed = tell(population, *calls, ActivityStarted(agent=agent, until=now + rng.uniform(1.0, 200.0)))
        if not quality.is_admitted("activity"):
            assert len(renewed) <= RENEWED_AT_ONCE + 1 and due(population, f"a{MANY - 1}") == 1e6
            changed = turns(population)
            assert max(changed) <= RENEWED_AT_ONCE and sum(changed) + len(renewed) >= MANY - 40
            assert due(population, f"a{MANY - 1}") is None
            return
        turns(population)
    pytest.fail("no verdict on activity")


def test_a_long_path_and_a_crowd_are_worked_off_in_turns(population: Population) -> None:
    nodes = [f"n{place}" for place in range(3_000)]
    tell(population, PathDeclared(nodes=nodes))
    assert "sim/n0" in tell(population, AgentActivated(agent="n0"))
    crowd = [AgentMoved(agent=f"a{place}", xy=(place / 100, 0.0), vision=50.0) for place in range(120)]
    tell(population, *crowd)
    assert max(turns(population)) <= RENEWED_AT_ONCE
    assert [due(population, node) for node in nodes] == [float(place) for place in range(3_000)]
    assert {due(population, f"a{place}") for place in range(120)} == {0.0}


def test_a_crowd_that_is_said_anew_is_foreseen_as_before_in_each_turn(population: Population) -> None:
    crowd = [AgentMoved(agent=f"a{n}", xy=(n / 10, 0.0), vision=50.0) for n in range(2 * RENEWED_AT_ONCE)]
    tell(population, *crowd)
    turns(population)
    before = {agent.agent: due(population, agent.agent) for agent in crowd}
    assert None not in before.values()
    population.apply([Restated(STREAM, [(event, 0.0) for event in crowd], 3.0)], 0.0)
    assert not population.take_changes().dues
    assert population.behind and not any(turns(population))
    assert {agent.agent: due(population, agent.agent) for agent in crowd} == before


def test_who_has_left_unheard_takes_nobody_s_place_in_a_crowd(population: Population) -> None:
    tell(population, AgentMoved(agent="y", xy=(0.0, 0.0), vision=3.0))
    tell(population, *[AgentMoved(agent=f"g{n}", xy=(1.0, n / 1000), vision=3.0) for n in range(80)])
    turns(population)
    said: list[tuple[Event, float | None]] = [
        (AgentMoved(agent="y", xy=(0.0, 0.0), vision=3.0), 0.0),
        (AgentMoved(agent="x", xy=(1.0, 0.0), vision=3.0), 1.0),
    ]
    population.apply([Restated(STREAM, said, 1.0)], 0.0)
    population.take_changes()
    turns(population)
    assert due(population, "x") == due(population, "y") == 1.0


def test_who_is_no_longer_said_to_be_idle_is_foreseen(population: Population) -> None:
    moves = [
        AgentMoved(agent="a", xy=(0.0, 0.0), destination=(10.0, 0.0), speed=1.0, vision=2.0),
        AgentMoved(agent="b", xy=(10.0, 0.0), destination=(0.0, 0.0), speed=1.0, vision=2.0),
    ]
    tell(population, *moves)
    tell(population, AgentIdled(agent="a"), AgentIdled(agent="b"))
    assert due(population, "a") is due(population, "b") is None
    population.apply([Restated(STREAM, [(move, 0.0) for move in moves], 1.0)], 0.0)
    population.take_changes()
    turns(population)
    assert due(population, "a") == due(population, "b") == 4.0


def test_the_loop_goes_on_while_anything_is_left(tmp_path: Path) -> None:
    sidecar = still_sidecar(tmp_path)
    open_stream(sidecar)
    say(sidecar, {"type": "plan.declared", "agents": [f"a{place}" for place in range(MANY)]})
    cycles = 0
    while sidecar.population.behind:
        sidecar.cycle()
        cycles += 1
    assert cycles == 3 and len(sidecar.population.board) == MANY
    sidecar.library.close()
