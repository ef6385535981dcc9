from __future__ import annotations

import tracemalloc
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalesim_client.events import (
    EVENT_TYPES,
    ActivityStarted,
    AgentActivated,
    AgentIdled,
    AgentMoved,
    AgentRegistered,
    AgentReleased,
    AgentWoken,
    Event,
    InvocationFinished,
    InvocationStarted,
    MemoryBound,
    MemoryUnbound,
    PathDeclared,
    PlanDeclared,
    StepAdvanced,
)
from scalesim_client.state import NewestState
from scalesim_estimators import ActivityEstimator, WokenEstimator
from scalesim_estimators.path import PathEstimator


def said(*events: Event) -> list[dict[str, Any]]:
    state = NewestState()
    for event in events:
        state.apply(event)
    return [msgpack.unpackb(packed) for packed in state.snapshot()]


def without_registrations(wires: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [wire for wire in wires if wire["type"] != "agent.registered"]


def test_the_newest_of_each_agent_and_type_is_kept_in_order() -> None:
    wires = said(
        StepAdvanced(now=1),
        AgentMoved(agent="a", place="home"),
        ActivityStarted(agent="b", until=9),
        StepAdvanced(now=2),
        AgentMoved(agent="a", place="park"),
    )
    assert wires == [
        {"type": "agent.registered", "agent": "a"},
        {"type": "agent.registered", "agent": "b"},
        {"type": "agent.activity_started", "agent": "b", "until": 9, "now": 1},
        {"type": "agent.moved", "agent": "a", "place": "park", "now": 2},
    ]


def test_a_duration_becomes_an_end() -> None:
    activity = said(StepAdvanced(now=10), ActivityStarted(agent="a", for_=5), StepAdvanced(now=12))[-1]
    assert activity == {"type": "agent.activity_started", "agent": "a", "until": 15, "now": 10}


def test_a_duration_stays_where_no_clock_was_announced() -> None:
    assert said(ActivityStarted(agent="a", for_=5))[-1] == {
        "type": "agent.activity_started",
        "agent": "a",
        "for": 5,
    }


def test_an_invocation_is_state_while_it_runs_and_ends_what_foresaw_it() -> None:
    foreseen = [ActivityStarted(agent="a", until=3), AgentWoken(agent="a"), AgentIdled(agent="a")]
    started = [InvocationStarted(agent="a", request="1"), InvocationStarted(agent="a", request="2")]
    running = said(*foreseen, *started, InvocationFinished(agent="a", request="1"))
    assert running == [
        {"type": "agent.registered", "agent": "a"},
        {"type": "invocation.started", "agent": "a", "request": "2"},
    ]
    done = said(*foreseen, *started, *(InvocationFinished(agent="a", request=r) for r in "12"))
    assert done == [{"type": "agent.registered", "agent": "a"}]


def test_a_released_agent_leaves_nothing() -> None:
    wires = said(
        PathDeclared(nodes=["a", "b"]),
        AgentRegistered(agent="a"),
        MemoryBound(agent="a", text="persona"),
        AgentActivated(agent="a"),
        InvocationStarted(agent="a"),
        AgentReleased(agent="a"),
    )
    assert [wire["type"] for wire in wires] == ["path.declared"]


def test_memory_stays_bound_until_it_is_not() -> None:
    bound = MemoryBound(agent="a", lora="/loras/a", lora_name="a", token_ids=[1, 2])
    assert said(bound, AgentIdled(agent="a"), InvocationStarted(agent="a"))[1] == bound.to_wire()
    assert said(bound, MemoryUnbound(agent="a"))[1:] == [{"type": "memory.unbound", "agent": "a"}]


def test_a_path_is_replaced_with_its_frontier() -> None:
    wires = said(
        StepAdvanced(now=1),
        PathDeclared(path="p", nodes=["a", "b"]),
        PathDeclared(path="q", nodes=["a", "c"]),
        AgentActivated(agent="a", path="p"),
        AgentActivated(agent="b", path="p"),
        AgentActivated(agent="a", path="q"),
        PathDeclared(path="p", nodes=["b", "a"]),
    )
    assert [(wire["type"], wire["path"]) for wire in without_registrations(wires)] == [
        ("path.declared", "q"),
        ("agent.activated", "q"),
        ("path.declared", "p"),
    ]


def test_a_plan_is_replaced_and_loses_who_has_called() -> None:
    declared = PlanDeclared(agents=["a", "b", "c"], probabilities=[0.5, 0.25, 1.0])
    wires = said(
        StepAdvanced(now=4),
        PlanDeclared(agents=["z"], at=9),
        InvocationStarted(agent="c"),
        InvocationFinished(agent="c"),
        declared,
        StepAdvanced(now=5),
        InvocationStarted(agent="b"),
        InvocationFinished(agent="b"),
    )
    assert [wire for wire in wires if wire["type"] == "plan.declared"] == [
        {"type": "plan.declared", "agents": ["a", "c"], "probabilities": [0.5, 1.0], "now": 4}
    ]


def test_a_plain_order_keeps_its_places() -> None:
    wires = said(StepAdvanced(now=4), PlanDeclared(agents=["a", "b"]), InvocationStarted(agent="a"))
    assert wires[0] == {"type": "plan.declared", "agents": ["a", "b"], "now": 4}


def test_a_clock_that_goes_back_voids_what_was_foreseen() -> None:
    bound = MemoryBound(agent="a", text="persona")
    wires = said(
        StepAdvanced(now=9),
        bound,
        PlanDeclared(agents=["a"], at=12),
        ActivityStarted(agent="a", for_=3),
        StepAdvanced(now=0),
    )
    assert wires == [{"type": "agent.registered", "agent": "a"}, bound.to_wire()]


def test_what_a_caller_does_to_a_list_later_changes_nothing() -> None:
    agents, state = ["a", "b"], NewestState()
    state.apply(PlanDeclared(agents=agents, at=3))
    agents.clear()
    state.apply(InvocationStarted(agent="b"))
    assert msgpack.unpackb(state.snapshot()[0])["agents"] == ["a"]


def test_chances_may_come_as_an_array() -> None:
    numpy = pytest.importorskip("numpy")
    plan = PlanDeclared(agents=["a", "b"], probabilities=numpy.array([0.5, 1.0]))
    assert said(plan, AgentIdled(agent="b"))[0]["probabilities"] == [0.5]


def test_agents_that_have_gone_leave_no_memory() -> None:
    state = NewestState()

    def come_and_go(numbers: range) -> int:
        for number in numbers:
            state.apply(InvocationStarted(agent=f"{number}"))
            state.apply(AgentReleased(agent=f"{number}"))
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    before = come_and_go(range(3000))
    after = come_and_go(range(3000, 6000))
    tracemalloc.stop()
    assert after - before < 32 * 1024


AGENTS = ("a", "b", "c", "d")
agents = st.sampled_from(AGENTS)
logs = st.lists(
    st.one_of(
        st.just("step"),
        st.builds(lambda agent, units: ActivityStarted(agent=agent, for_=units), agents, st.integers(0, 5)),
        st.builds(lambda agent: AgentWoken(agent=agent), agents),
        st.builds(lambda agent: AgentIdled(agent=agent), agents),
        st.builds(lambda agent: AgentReleased(agent=agent), agents),
        st.builds(lambda agent: InvocationStarted(agent=agent), agents),
        st.builds(lambda agent: InvocationFinished(agent=agent), agents),
        st.builds(
            lambda nodes, hop: PathDeclared(nodes=nodes, hop=hop), st.permutations(AGENTS), st.integers(1, 3)
        ),
        st.builds(lambda agent: AgentActivated(agent=agent), agents),
    ),
    max_size=30,
)


@given(logs)
def test_a_replayed_snapshot_foresees_what_the_whole_log_foresaw(log: list[Any]) -> None:
    now, state = 0.0, NewestState()
    whole = [ActivityEstimator(), WokenEstimator()]
    again = [ActivityEstimator(), WokenEstimator()]
    for entry in [StepAdvanced(now=0), *log]:
        if entry == "step":
            now += 1
            entry = StepAdvanced(now=now)
        state.apply(entry)
        for estimator in whole:
            estimator.observe(entry, now)
    for packed in state.snapshot():
        wire = msgpack.unpackb(packed)
        said_at = wire.pop("now", now)
        event = EVENT_TYPES[wire.pop("type")](**wire)
        for estimator in again:
            estimator.observe(event, said_at)
    for agent in AGENTS:
        assert [e.estimate(agent) for e in again] == [e.estimate(agent) for e in whole]


@given(
    st.permutations(AGENTS),
    st.integers(1, 3),
    st.lists(st.tuples(st.integers(0, 4), agents, st.booleans()), max_size=8),
)
def test_a_replayed_frontier_foresees_the_same(
    nodes: list[str], hop: int, moves: list[tuple[int, str, bool]]
) -> None:
    """The frontier reaches agents, some of them twice, and they call."""
    now, state, whole, again = 0.0, NewestState(), PathEstimator(), PathEstimator()
    events: list[Event] = [PathDeclared(nodes=nodes, hop=hop)]
    for pause, agent, calls in moves:
        now += pause
        happens = InvocationStarted(agent=agent) if calls else AgentActivated(agent=agent)
        events += [StepAdvanced(now=now), happens]
    now = 0.0
    for event in events:
        now = event.now if isinstance(event, StepAdvanced) else now
        state.apply(event)
        whole.observe(event, now)
    for packed in state.snapshot():
        wire = msgpack.unpackb(packed)
        said_at = wire.pop("now", now)
        again.observe(EVENT_TYPES[wire.pop("type")](**wire), said_at)
    assert [again.estimate(agent) for agent in nodes] == [whole.estimate(agent) for agent in nodes]
