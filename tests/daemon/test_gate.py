from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalesim_client.events import (
    ActivityStarted,
    AgentIdled,
    AgentMoved,
    AgentReleased,
    AgentWoken,
    Event,
    InvocationFinished,
    InvocationStarted,
    MemoryBound,
    MemoryUnbound,
    PathDeclared,
    PlanDeclared,
    StateSnapshot,
    StepAdvanced,
    StreamClosed,
    StreamOpened,
)
from scalesim_client.state import NewestState
from scalesim_daemon.gate import Closed, Gate, Opened, Restated, Said, joined
from scalesim_daemon.population import Population

Raw = dict[str, Any]


def opened(incarnation: int = 1, **changes: Any) -> Raw:
    return (
        StreamOpened(simulation="sim", source="src", incarnation=incarnation, clock="step").to_wire()
        | changes
    )


def woken(*agents: str) -> list[Raw]:
    return [AgentWoken(agent=agent).to_wire() for agent in agents]


def part(index: int, of: int, *agents: str, now: float = 1.0) -> Raw:
    return StateSnapshot(part=index, of=of, events=woken(*agents), now=now).to_wire()


def names(events: Iterable[Any]) -> list[str]:
    return [event[0].agent if isinstance(event, tuple) else event.agent for event in events]


@pytest.fixture
def gate() -> Gate:
    """A gate that has admitted message 0 of `src`."""
    gate = Gate()
    verdict = gate.admit("src", 0, [opened()])
    assert (verdict.welcome, verdict.resync, verdict.error, verdict.last_seq) == (True, False, None, 0)
    assert [type(item) for item in verdict.admitted] == [Opened]
    return gate


def stale(gate: Gate) -> bool:
    return gate.streams()["src"][1]


def test_messages_in_order_are_admitted(gate: Gate) -> None:
    verdict = gate.admit("src", 1, woken("a", "b"))
    (said,) = verdict.admitted
    assert isinstance(said, Said)
    assert (names(said.events), verdict.last_seq, verdict.resync, verdict.accepted) == (
        ["a", "b"],
        1,
        False,
        2,
    )


def test_doubles_and_late_comers_are_dropped(gate: Gate) -> None:
    gate.admit("src", 1, woken("a"))
    for seq in (1, 0):
        verdict = gate.admit("src", seq, woken("a"))
        assert (verdict.admitted, verdict.accepted, verdict.last_seq) == ((), 0, 1)
    assert gate.counts["duplicates"] == 2
    assert not stale(gate)


def test_a_gap_makes_the_view_stale_until_the_next_snapshot(gate: Gate) -> None:
    verdict = gate.admit("src", 5, woken("a"))
    assert verdict.resync and stale(gate) and gate.counts["gaps"] == 1
    assert names(verdict.admitted[0].events) == ["a"]
    assert gate.admit("src", 6, woken("a")).resync
    verdict = gate.admit("src", 7, [part(0, 1, "b")])
    assert not verdict.resync and not stale(gate)
    assert isinstance(verdict.admitted[0], Restated)


def test_an_unknown_source_is_asked_to_open(gate: Gate) -> None:
    verdict = gate.admit("other", 3, woken("a"))
    assert (verdict.admitted, verdict.resync, verdict.last_seq) == ((), True, -1)
    assert gate.counts["unopened"] == 1


def test_a_source_first_heard_late_is_stale() -> None:
    gate = Gate()
    verdict = gate.admit("src", 9, [opened()])
    assert verdict.welcome and verdict.resync and stale(gate)


def test_a_restart_replaces_and_an_older_incarnation_is_fenced(gate: Gate) -> None:
    gate.admit("src", 7, woken("a"))
    verdict = gate.admit("src", 0, [opened(2), *woken("b")])
    assert [type(item) for item in verdict.admitted] == [Opened, Said]
    assert (verdict.last_seq, verdict.resync) == (0, False)
    old = gate.admit("src", 8, [opened(1), *woken("c")])
    assert (old.admitted, old.welcome) == ((), True)
    assert old.error is not None and "older" in old.error
    assert gate.counts["fenced"] == 1
    assert gate.streams()["src"][0].incarnation == 2


def test_the_same_incarnation_may_knock_again(gate: Gate) -> None:
    gate.admit("src", 1, woken("a"))
    verdict = gate.admit("src", 2, [opened(), *woken("b")])
    assert [type(item) for item in verdict.admitted] == [Said]
    assert (verdict.welcome, verdict.resync, verdict.last_seq) == (True, True, 2)
    assert not gate.admit("src", 3, [part(0, 1, "a", "b")]).resync


def test_a_doubled_opening_says_nothing_twice(gate: Gate) -> None:
    gate.admit("src", 1, woken("a"))
    verdict = gate.admit("src", 0, [opened(), *woken("b")])
    assert (verdict.admitted, verdict.welcome, verdict.resync) == ((), True, True)


def test_an_unknown_major_version_is_refused_and_a_minor_one_is_not(gate: Gate) -> None:
    verdict = gate.admit("new", 0, [opened(schema_version="2.0"), *woken("a")])
    assert (verdict.admitted, verdict.welcome) == ((), True)
    assert verdict.error is not None and "2.0" in verdict.error
    assert "new" not in gate.streams()
    assert gate.admit("new", 0, [opened(schema_version="1.9")]).error is None


def test_snapshots_come_in_parts_and_replace(gate: Gate) -> None:
    assert gate.admit("src", 1, [part(0, 3, "a", now=4.0)]).admitted == []
    assert gate.admit("src", 2, [part(1, 3, "b", now=4.0)]).admitted == []
    (restated,) = gate.admit("src", 3, [*woken("x"), part(2, 3, "c", now=4.0)]).admitted[:1]
    assert isinstance(restated, Restated)
    assert (names(restated.events), restated.now) == (["a", "b", "c"], 4.0)


def test_what_is_said_between_the_parts_comes_on_top(gate: Gate) -> None:
    gate.admit("src", 1, [*woken("before"), part(0, 2, "a")])
    gate.admit("src", 2, woken("x"))
    restated, said = gate.admit("src", 3, [*woken("y"), part(1, 2, "b"), *woken("z")]).admitted
    assert isinstance(restated, Restated) and isinstance(said, Said)
    assert (names(restated.events), names(said.events)) == (["a", "b"], ["x", "y", "z"])
    restated, said = gate.admit("src", 4, [*woken("before"), part(0, 1, "a"), *woken("after")]).admitted
    assert isinstance(said, Said)
    assert names(said.events) == ["after"]


def test_a_snapshot_that_starts_over_forgets_its_first_parts(gate: Gate) -> None:
    gate.admit("src", 1, [part(0, 2, "old")])
    gate.admit("src", 2, [part(0, 2, "new")])
    (restated,) = gate.admit("src", 3, [part(1, 2, "b")]).admitted
    assert isinstance(restated, Restated)
    assert names(restated.events) == ["new", "b"]


@pytest.mark.parametrize("parts", [[(0, 3), (2, 3)], [(1, 2)], [(0, 2), (1, 3)], [(0, 2), (1, 3), (2, 3)]])
def test_parts_that_do_not_fit_make_no_snapshot(gate: Gate, parts: list[tuple[int, int]]) -> None:
    for seq, (index, of) in enumerate(parts, 1):
        verdict = gate.admit("src", seq, [part(index, of, "a")])
        assert not any(isinstance(item, Restated) for item in verdict.admitted)
    assert stale(gate)


def test_parts_on_both_sides_of_a_gap_are_not_mixed(gate: Gate) -> None:
    """The first part of one snapshot must not complete the rest of another."""
    gate.admit("src", 1, [part(0, 2, "old")])
    verdict = gate.admit("src", 4, [part(1, 2, "new")])
    assert verdict.admitted == [] and stale(gate)


def test_a_restated_event_keeps_the_time_at_which_it_was_said(gate: Gate) -> None:
    events = [{"type": "agent.woken", "agent": "a", "now": 3}, *woken("b")]
    snapshot = StateSnapshot(part=0, of=1, events=events, now=7.0).to_wire()
    (restated,) = gate.admit("src", 1, [snapshot]).admitted
    assert isinstance(restated, Restated)
    assert [said_at for _, said_at in restated.events] == [3.0, None]


def test_a_snapshot_holds_only_what_can_be_restated(gate: Gate) -> None:
    events = [
        *woken("a"),
        opened(9),
        part(0, 1, "b"),
        StreamClosed().to_wire(),
        {"type": "agent.woken"},
        {"type": "?!"},
    ]
    snapshot = StateSnapshot(part=0, of=1, events=events).to_wire()
    (restated,) = gate.admit("src", 1, [snapshot]).admitted
    assert isinstance(restated, Restated)
    assert names(restated.events) == ["a"]
    assert (gate.counts["malformed"], gate.unknown_types) == (1, {"?!": 1})


def test_a_closed_stream_is_over(gate: Gate) -> None:
    verdict = gate.admit("src", 1, [*woken("a"), StreamClosed().to_wire(), *woken("b")])
    assert [type(item) for item in verdict.admitted] == [Said, Closed]
    assert names(verdict.admitted[0].events) == ["a"]
    assert gate.admit("src", 2, woken("a")).resync
    assert gate.streams() == {}


def test_bad_events_are_counted_and_cost_their_neighbours_nothing(gate: Gate) -> None:
    verdict = gate.admit("src", 1, [{"type": "agent.woken"}, *woken("a"), {"type": "what.ever"}, 3])
    assert names(verdict.admitted[0].events) == ["a"]
    assert [refusal.unknown for refusal in verdict.refused] == [False, True, False]
    assert (gate.counts["malformed"], gate.counts["unknown"], gate.counts["events"]) == (2, 1, 2)


def test_counted_names_are_bounded(gate: Gate) -> None:
    gate.admit("src", 1, [{"type": f"type{index}"} for index in range(500)])
    assert len(gate.unknown_types) <= 101
    assert sum(gate.unknown_types.values()) == 500


def test_a_bare_event_needs_no_stream() -> None:
    gate = Gate()
    (said,) = gate.admit("anonymous", None, woken("a")).admitted
    assert isinstance(said, Said)
    assert (said.stream.simulation, said.stream.clock) == ("anonymous", "wall_seconds")
    assert gate.admit("ano/nym", None, woken("a")).admitted[0].stream.simulation == "ano-nym"
    assert not gate.admit("anonymous", None, woken("a")).resync


# Behind the gate: what is lost, late, doubled or reordered costs time only.

agents = st.sampled_from("abc")
amounts = st.integers(0, 6)


def events() -> st.SearchStrategy[Event]:
    return st.one_of(
        st.builds(AgentWoken, agent=agents),
        st.builds(AgentIdled, agent=agents),
        st.builds(AgentReleased, agent=agents),
        st.builds(ActivityStarted, agent=agents, for_=amounts.map(float)),
        st.builds(
            AgentMoved,
            agent=agents,
            xy=st.tuples(amounts.map(float), amounts.map(float)),
            destination=st.tuples(amounts.map(float), amounts.map(float)),
            speed=st.just(1.0),
            vision=st.just(2.0),
        ),
        st.builds(InvocationStarted, agent=agents),
        st.builds(InvocationFinished, agent=agents),
        st.builds(MemoryBound, agent=agents, text=st.sampled_from(["x", "y"])),
        st.builds(MemoryUnbound, agent=agents),
        st.builds(PlanDeclared, agents=st.lists(agents, unique=True), at=st.none() | amounts.map(float)),
        st.builds(PathDeclared, nodes=st.lists(agents, min_size=2, unique=True)),
        st.builds(StepAdvanced, now=st.integers(0, 20).map(float)),
    )


def sensible(said: list[Event]) -> list[Event]:
    """Let a log's clock only go on, and an agent have one request at a time (a source counts them as one)."""
    kept: list[Event] = [StepAdvanced(now=0.0)]
    now, calling = 0.0, set[str]()
    for event in said:
        match event:
            case StepAdvanced():
                now += event.now / 4
                event = StepAdvanced(now=now)
            case InvocationStarted(agent=agent):
                if agent in calling:
                    continue
                calling.add(agent)
            case InvocationFinished(agent=agent) | AgentReleased(agent=agent):
                calling.discard(agent)
        kept.append(event)
    return kept


def messages(log: list[Event]) -> list[list[Raw]]:
    """Say the log as a source would, with a snapshot in two parts after every tenth event and at the end."""
    state, said = NewestState(), [[opened()]]
    for index, event in enumerate(log):
        state.apply(event)
        said.append([event.to_wire()])
        if index % 10 == 9 or index == len(log) - 1:
            restated = [msgpack.unpackb(packed) for packed in state.snapshot()]
            half = len(restated) // 2
            for number, chunk in enumerate((restated[:half], restated[half:])):
                said.append([StateSnapshot(part=number, of=2, events=chunk, now=state.now).to_wire()])
    return said


def hear(gate: Gate, population: Population, numbered: Iterable[tuple[int, list[Raw]]]) -> None:
    for seq, message in numbered:
        population.apply(gate.admit("src", seq, message).admitted, 0.0)


def known(population: Population, called: Collection[str] = ()) -> dict[str, object]:
    """What the daemon makes of a feed: estimates, memory and requests in flight, agent by agent. How long a
    step is, and so what is overdue and gives way to what comes next, each learns from the steps that it has seen.
    That who was `called` has met somebody or come to a place is known to who heard the call: nothing restates it. And
    who missed a step before a call has heard that twice, at two clock values: history has learned a gap."""
    blend = population._voices["src"].blend
    keys = {*population.agents, *population.board.agents()}

    def due(agent: str) -> object:
        if agent not in called:
            return blend.estimate(agent)
        said = zip(blend.estimators, blend.ask(agent), strict=True)
        return [one for estimator, one in said if estimator.name not in ("interaction", "path", "history")]

    return {
        key: (
            due(key.removeprefix("sim/")) if key in population.board.agents() or called else None,
            None if key not in population.agents else population.agents[key].memory,
            0 if key not in population.agents else population.agents[key].in_flight,
        )
        for key in keys
    }


@settings(max_examples=200, deadline=None)
@given(st.lists(events(), min_size=1, max_size=35).map(sensible), st.data())
def test_faults_of_the_feed_cost_time_only(log: list[Event], data: st.DataObject) -> None:
    perfect, faulty = (Gate(), Population()), (Gate(), Population())
    said = list(enumerate(messages(log)))
    faults = data.draw(st.lists(st.sampled_from(["lose", "double", "late", "none"]), max_size=len(said)))
    arriving: list[tuple[int, list[Raw]]] = []
    late: list[tuple[int, list[Raw]]] = []
    for index, message in enumerate(said):
        fault = faults[index] if index < len(faults) and index < len(said) - 2 else "none"
        arriving += {"lose": [], "late": [], "double": [message, message], "none": [message]}[fault]
        if fault == "late":
            late.append(message)
        elif late and fault == "none" and index < len(said) - 2:
            arriving.append(late.pop(0))
    hear(*perfect, said)
    hear(*faulty, arriving)
    if "src" not in faulty[0].streams():
        # The opening was lost: asked to, the source opens again and restates.
        last = len(said)
        hear(*faulty, [(last, said[0][1]), (last + 1, said[-2][1]), (last + 2, said[-1][1])])
    assert not faulty[0].streams()["src"][1]
    called = {event.agent for event in log if isinstance(event, InvocationStarted)}
    assert known(faulty[1], called) == known(perfect[1], called)
    assert (
        faulty[1].in_flight()
        == perfect[1].in_flight()
        == sum(agent.in_flight for agent in perfect[1].agents.values())
    )


def restatable(event: Event) -> bool:
    """Whether a snapshot says exactly the same: a plain order stays whole, and of a running request and a
    walk the order in time is not restated."""
    return not isinstance(event, AgentMoved) and not (isinstance(event, PlanDeclared) and event.at is None)


@settings(max_examples=200, deadline=None)
@given(st.lists(events().filter(restatable), max_size=35).map(sensible))
def test_a_snapshot_says_what_the_events_said(log: list[Event]) -> None:
    plain, restated = Population(), Population()
    gate = Gate()
    hear(gate, plain, enumerate([[opened()], *([event.to_wire()] for event in log)]))
    hear(Gate(), restated, enumerate(messages(log)))
    assert known(restated) == known(plain)
    assert restated.clocks()["src"][1].now == plain.clocks()["src"][1].now


def test_an_older_process_can_not_speak_beside_the_one_that_replaced_it() -> None:
    gate = Gate()
    gate.admit("src", 0, [opened(1)], b"old")
    gate.admit("src", 0, [opened(2)], b"new")
    verdict = gate.admit("src", 5000, woken("a"), b"old")
    assert (verdict.admitted, verdict.resync) == ((), True)
    assert names(gate.admit("src", 1, woken("b"), b"new").admitted[0].events) == ["b"]


def test_only_what_a_stream_says_in_messages_that_follow_each_other_is_joined() -> None:
    gate, admitted = Gate(), []
    for seq, raws in enumerate([[opened()], woken("a"), woken("b"), [opened(2)], woken("c")]):
        admitted += gate.admit("src", seq, raws).admitted
    first, said, second, last = joined(admitted)
    assert (type(first), type(second)) == (Opened, Opened)
    assert (names(said.events), names(last.events)) == (["a", "b"], ["c"])
