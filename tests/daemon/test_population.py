from __future__ import annotations

import math
from array import array

import pytest

from scalesim_client.events import (
    ActivityStarted,
    AgentMoved,
    AgentRegistered,
    AgentReleased,
    AgentWoken,
    Event,
    InvocationFinished,
    InvocationStarted,
    MemoryBound,
    MemoryUnbound,
    PlanDeclared,
    StepAdvanced,
)
from scalesim_daemon.gate import Admitted, Closed, Opened, Restated, Said, Stream
from scalesim_daemon.population import Changes, Memory, Population
from scalesim_estimators import Figures


def stream(source: str = "src", simulation: str = "sim", incarnation: int = 1) -> Stream:
    return Stream(source, simulation, incarnation, "step")


def said(*events: Event, of: Stream | None = None) -> Said:
    return Said(of or stream(), events)


def restated(*events: Event, now: float | None = None, of: Stream | None = None) -> Restated:
    return Restated(of or stream(), [(event, None) for event in events], now)


def after(population: Population, *admitted: Admitted, wall: float = 0.0) -> Changes:
    population.take_changes()
    population.apply(admitted, wall)
    return population.take_changes()


@pytest.fixture
def population() -> Population:
    population = Population()
    population.apply([Opened(stream())], 0.0)
    return population


def started(agent: str = "a") -> InvocationStarted:
    return InvocationStarted(agent=agent)


def finished(agent: str = "a") -> InvocationFinished:
    return InvocationFinished(agent=agent)


def blended(population: Population) -> Figures:
    return population.qualities()["src"].figures()["blend"]


# Dues


def test_events_make_dues_and_ticks_bring_them_nearer(population: Population) -> None:
    changes = after(population, said(StepAdvanced(now=2), ActivityStarted(agent="a", for_=5)))
    assert population.board.seconds("sim/a") == 5
    assert (changes.dues, changes.clocks) == ({"sim/a"}, {"src"})
    changes = after(population, said(StepAdvanced(now=6)))
    assert population.board.seconds("sim/a") == 1
    assert changes.dues == set()


def test_an_agent_never_registered_is_known_from_what_is_said_of_it(population: Population) -> None:
    after(population, said(PlanDeclared(agents=["a", "b"]), MemoryBound(agent="c", text="hello")))
    assert population.board.seconds("sim/b") == 1
    assert population.board.seconds("sim/never-heard-of") == math.inf
    assert set(population.agents) == {"sim/c"}
    changes = after(population, said(AgentReleased(agent="never-heard-of"), finished("neither")))
    assert (changes.finished, population.in_flight()) == ([], 0)


def test_an_overdue_agent_is_far(population: Population) -> None:
    after(population, said(StepAdvanced(now=0), ActivityStarted(agent="a", for_=2), StepAdvanced(now=1)))
    assert population.board.seconds("sim/a") == 1
    after(population, said(StepAdvanced(now=2), StepAdvanced(now=3)))
    assert population.board.seconds("sim/a") == 0
    after(population, said(StepAdvanced(now=4)))
    assert population.board.seconds("sim/a") == math.inf


def test_what_is_overdue_gives_way_to_what_comes_next(population: Population) -> None:
    after(population, said(PlanDeclared(agents=["a", "b"], at=2), ActivityStarted(agent="a", until=9)))
    assert population.board.seconds("sim/a") == 2
    changes = after(population, said(StepAdvanced(now=3), StepAdvanced(now=4)))
    assert (population.board.seconds("sim/a"), population.board.seconds("sim/b")) == (5, math.inf)
    assert changes.dues == {"sim/a"}
    overdue = population.board.get("sim/b")
    assert overdue is not None and overdue.basis == "overdue: declared step"
    assert after(population, said(StepAdvanced(now=5))).dues == set()
    after(population, said(ActivityStarted(agent="b", until=20)))
    assert population.board.seconds("sim/b") == 15, "what is said of an overdue agent counts at once"


def test_a_clock_that_jumps_back_voids_the_dues_and_nothing_else(population: Population) -> None:
    after(
        population,
        said(
            StepAdvanced(now=50),
            ActivityStarted(agent="a", for_=5),
            MemoryBound(agent="a", text="x"),
            started("b"),
        ),
    )
    changes = after(population, said(StepAdvanced(now=0)))
    assert population.board.seconds("sim/a") == math.inf
    assert changes.dues == {"sim/a", "sim/b"}
    assert population.agents["sim/a"].memory is not None
    assert population.in_flight() == 1
    after(population, said(ActivityStarted(agent="a", for_=5)))
    assert population.board.seconds("sim/a") == 5


def test_two_simulations_may_name_their_agents_alike(population: Population) -> None:
    other = stream("src2", "sim2")
    after(
        population,
        said(AgentWoken(agent="1")),
        Opened(other),
        said(ActivityStarted(agent="1", for_=9), of=other),
    )
    assert (population.board.seconds("sim/1"), population.board.seconds("sim2/1")) == (0, 9)
    after(population, said(started("1"), of=other))
    assert (population.agents["sim/1"].in_flight, population.agents["sim2/1"].in_flight) == (0, 1)
    changes = after(population, Closed(other))
    assert (changes.closed, changes.finished) == (["sim2"], ["sim2/1"])
    assert set(population.agents) == {"sim/1"}


def test_two_sources_may_speak_of_one_agent(population: Population) -> None:
    other = stream("src2")
    after(
        population,
        said(ActivityStarted(agent="a", for_=9)),
        Opened(other),
        said(ActivityStarted(agent="a", for_=3), MemoryBound(agent="a", text="x"), started(), of=other),
    )
    changes = after(population, Closed(other))
    assert population.board.seconds("sim/a") == 9
    assert population.agents["sim/a"].memory is None
    assert population.agents["sim/a"].in_flight == 0
    assert (changes.unbound, changes.finished) == (["sim/a"], ["sim/a"])


def test_order_scores_are_kept_over_restatements_and_dropped_when_the_clock_goes_back(
    population: Population,
) -> None:
    after(
        population,
        said(StepAdvanced(now=0), PlanDeclared(agents=["a", "b"]), StepAdvanced(now=1), started("a")),
    )
    after(population, said(StepAdvanced(now=2), started("b")))
    assert blended(population).order_accuracy == 1.0
    after(population, restated(AgentRegistered(agent="a"), now=2))
    assert blended(population).pairs == 1
    after(population, restated(AgentRegistered(agent="a"), now=0))
    assert blended(population).pairs == 0


def by_turns(population: Population, rounds: int, *, first: int = 0, at_once: bool = False) -> None:
    """Let four agents call by turns, one per step; `at_once` says, mostly wrongly, that each calls again at once."""
    for now in range(first, first + 4 * rounds):
        agent = "abcd"[now % 4]
        due = now + 1 if at_once and now % 3 else now + 4
        events: list[Event] = [StepAdvanced(now=now), started(agent), finished(agent)]
        after(population, said(*events, *([ActivityStarted(agent=agent, until=due)] if at_once else [])))


def test_calls_alone_are_enough_once_they_have_shown_to_foretell(population: Population) -> None:
    by_turns(population, 3)
    assert len(population.board) == 0
    by_turns(population, 30, first=12)
    assert [population.board.seconds(f"sim/{agent}") for agent in "abcd"] == [1, 2, 3, 4]
    due = population.board.get("sim/a")
    assert due is not None and due.basis == "history: period 4"


def test_what_was_learned_outlives_a_snapshot_that_names_the_agent(population: Population) -> None:
    by_turns(population, 40)
    after(population, restated(AgentRegistered(agent="a"), AgentRegistered(agent="b"), now=159))
    assert [population.board.seconds(f"sim/{agent}") for agent in "abcd"] == [1, 2, math.inf, math.inf]
    after(population, said(StepAdvanced(now=0)))
    assert len(population.board) == 0
    after(population, restated(AgentRegistered(agent="a"), AgentRegistered(agent="c"), now=1))
    assert len(population.board) == 0


def test_who_foretells_worse_than_recency_is_no_longer_heard(population: Population) -> None:
    by_turns(population, 60, at_once=True)
    quality = population.qualities()["src"]
    assert not quality.is_admitted("activity") and quality.is_admitted("history")
    bases = [due.basis for agent in "abcd" if (due := population.board.get(f"sim/{agent}")) is not None]
    assert bases == ["history: period 4"] * 4


# Requests in flight


def test_requests_are_counted_from_start_to_end(population: Population) -> None:
    changes = after(population, said(started(), started(), started("b")))
    assert changes.started == ["sim/a", "sim/a", "sim/b"]
    assert (population.in_flight(), population.agents["sim/a"].in_flight) == (3, 2)
    assert population.agents["sim/b"].recency > population.agents["sim/a"].recency > 0
    changes = after(population, said(finished(), finished(), finished()))
    assert changes.finished == ["sim/a", "sim/a"]
    assert (population.in_flight(), population.agents["sim/a"].invocations) == (1, 2)


def test_a_restarted_source_has_nothing_in_flight(population: Population) -> None:
    after(population, said(started(), started()))
    changes = after(population, Opened(stream(incarnation=2)))
    assert changes.finished == ["sim/a", "sim/a"]
    assert population.in_flight() == 0
    after(population, said(started(), of=stream(incarnation=2)))
    assert population.agents["sim/a"].in_flight == 1


def test_a_snapshot_tells_of_starts_and_ends_that_were_missed(population: Population) -> None:
    after(population, said(started("a"), started("b"), started("b")))
    changes = after(population, restated(started("a"), started("c")))
    assert (changes.started, changes.finished) == (["sim/c"], ["sim/b", "sim/b"])
    assert population.in_flight() == 2
    assert {key: agent.in_flight for key, agent in population.agents.items()} == {"sim/a": 1, "sim/c": 1}
    changes = after(population, said(finished("a"), finished("c")))
    assert changes.finished == ["sim/a", "sim/c"]


def test_a_released_agent_has_nothing_in_flight(population: Population) -> None:
    other = stream("src2")
    after(population, said(started()), Opened(other), said(AgentRegistered(agent="a"), of=other))
    changes = after(population, said(AgentReleased(agent="a")))
    assert changes.finished == ["sim/a"]
    assert (population.in_flight(), population.agents["sim/a"].in_flight) == (0, 0)
    changes = after(population, said(AgentReleased(agent="a"), of=other))
    assert changes.unbound == ["sim/a"]
    assert population.agents == {}


# Memory


def test_memory_is_bound_rebound_and_unbound(population: Population) -> None:
    bind = MemoryBound(agent="a", token_ids=[1, 2], cache_salt="s")
    assert after(population, said(bind)).bound == ["sim/a"]
    assert population.agents["sim/a"].memory == Memory(token_ids=array("I", [1, 2]), cache_salt="s")
    assert after(population, said(bind)).bound == []
    assert after(population, said(MemoryBound(agent="a", text="x"))).bound == ["sim/a"]
    assert after(population, said(MemoryUnbound(agent="a"), MemoryUnbound(agent="a"))).unbound == ["sim/a"]
    assert population.agents["sim/a"].memory is None


def test_memory_that_a_snapshot_no_longer_names_is_unbound(population: Population) -> None:
    bind = MemoryBound(agent="a", text="x")
    after(population, said(bind, MemoryBound(agent="b", text="x")))
    changes = after(population, restated(bind, AgentRegistered(agent="b")))
    assert (changes.bound, changes.unbound) == ([], ["sim/b"])


def test_an_agent_that_is_gone_is_forgotten_bound_or_not(population: Population) -> None:
    after(population, said(AgentRegistered(agent="a"), MemoryBound(agent="b", text="x")))
    changes = after(population, said(AgentReleased(agent="a"), AgentReleased(agent="b")))
    assert changes.unbound == ["sim/a", "sim/b"]
    assert (population.agents, len(population.board)) == ({}, 0)


def test_the_last_user_of_a_lora_leaves_its_name_unused(population: Population) -> None:
    after(population, said(*(MemoryBound(agent=agent, lora="/l", lora_name="l") for agent in "ab")))
    assert after(population, said(AgentReleased(agent="a"))).unused_loras == []
    assert after(population, said(AgentReleased(agent="b"))).unused_loras == ["l"]


# Restating


def test_a_snapshot_replaces_dues_and_keeps_what_counts_invocations(population: Population) -> None:
    after(population, said(ActivityStarted(agent="a", for_=5), AgentWoken(agent="b"), started("a")))
    changes = after(population, restated(ActivityStarted(agent="a", until=7), now=3.0))
    assert population.board.seconds("sim/a") == 4
    assert population.board.seconds("sim/b") == math.inf
    assert set(population.agents) == {"sim/a"}
    assert population.agents["sim/a"].invocations == 1
    assert {"sim/a", "sim/b"} <= changes.dues


def test_a_restated_event_counts_from_when_it_was_said(population: Population) -> None:
    plan, wake = PlanDeclared(agents=["a", "b", "c"]), AgentWoken(agent="w")
    after(population, Restated(stream(), [(plan, 10.0), (wake, 99.0)], 11.0))
    assert [population.board.seconds(f"sim/{agent}") for agent in "abcw"] == [0, 0, 1, 0]


def test_a_stream_may_be_restated_before_anything_else() -> None:
    population = Population()
    changes = after(population, restated(started(), now=5.0))
    assert (population.in_flight(), changes.started, changes.clocks) == (1, ["sim/a"], {"src"})


def test_a_closed_stream_leaves_nothing(population: Population) -> None:
    after(population, said(AgentWoken(agent="a"), MemoryBound(agent="a", text="x"), started()))
    changes = after(population, Closed(stream()))
    assert (population.agents, len(population.board), population.clocks(), population.qualities()) == (
        {},
        0,
        {},
        {},
    )
    assert (changes.unbound, changes.finished, changes.closed) == (["sim/a"], ["sim/a"], ["sim"])


# What was lost


def test_an_agent_that_a_snapshot_releases_may_have_had_a_request_in_flight(population: Population) -> None:
    after(population, said(started()))
    changes = after(population, restated(AgentReleased(agent="a")))
    assert changes.finished == ["sim/a"]
    assert "sim/a" not in population.agents


def test_the_requests_of_a_source_that_fell_silent_count_as_ended(population: Population) -> None:
    after(population, said(started()), wall=1.0)
    population.give_up_silent(100.0)
    assert population.in_flight() == 1
    population.give_up_silent(122.0)
    assert population.in_flight() == 0
    assert population.take_changes().finished == ["sim/a"]
    assert after(population, said(finished()), wall=123.0).finished == []


def walks(agent: str, x: float) -> AgentMoved:
    return AgentMoved(agent=agent, xy=(x, 0), destination=(0, 0), speed=1.0, vision=1.0)


def test_after_a_meeting_that_came_to_nothing_the_next_one_is_foreseen(population: Population) -> None:
    stands = AgentMoved(agent="a", xy=(0, 0), vision=1.0)
    after(population, said(StepAdvanced(now=0), StepAdvanced(now=1), stands, walks("b", 5)))
    after(population, *(said(StepAdvanced(now=now)) for now in range(2, 12)))
    due = population.board.get("sim/a")
    assert due is not None
    assert due.basis == "overdue: interaction with b"
    after(population, said(walks("c", -6)))
    due = population.board.get("sim/a")
    assert due is not None
    assert (due.basis, due.distance) == ("interaction with c", 5.0)
    after(population, said(AgentReleased(agent="c")))
    due = population.board.get("sim/a")
    assert due is None or due.distance == math.inf


@pytest.mark.parametrize("released_first", [True, False])
def test_whom_nobody_speaks_of_or_foresees_any_more_is_gone(
    population: Population, released_first: bool
) -> None:
    other = stream("other")
    after(population, Opened(other), said(started(), finished()), said(PlanDeclared(agents=["a"]), of=other))
    ends = [said(AgentReleased(agent="a")), said(PlanDeclared(agents=["b"]), of=other)]
    for end in ends if released_first else reversed(ends):
        after(population, end)
    assert not population.agents and not population.knows("sim/a") and population.knows("sim/b")


def test_a_clock_that_goes_back_takes_whom_only_it_foresaw(population: Population) -> None:
    other = stream("other")
    after(population, Opened(other), said(started(), finished()))
    after(population, said(StepAdvanced(now=5), PlanDeclared(agents=["a"]), of=other))
    after(population, said(AgentReleased(agent="a")))
    assert population.knows("sim/a")
    after(population, said(StepAdvanced(now=1), of=other))
    assert not population.knows("sim/a")
