"""A message that is decoded as a whole is what it would have been event by event, or isn't decoded so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalesim_client.codec import decode, encode
from scalesim_client.events import (
    MAX_EVENTS_PER_MESSAGE,
    MAX_MESSAGE_BYTES,
    ActivityStarted,
    AgentActivated,
    AgentIdled,
    AgentMoved,
    AgentReleased,
    AgentWoken,
    Event,
    InvocationFinished,
    InvocationStarted,
    PathDeclared,
    PlanDeclared,
    StepAdvanced,
    StreamOpened,
)
from scalesim_daemon.gate import Gate, Opened, Said, Stream
from scalesim_daemon.population import Agent, Population
from scalesim_daemon.wire import parse_all, read_plain
from scalesim_estimators import Estimate
from tests.client.wire_page import EVENTS

NEVER_PLAIN = {"stream.opened", "stream.closed", "state.snapshot", "memory.bound"}
LONG = "agent.registered, a long name"
PLAIN = {name: event for name, event in EVENTS.items() if event.type not in NEVER_PLAIN and name != LONG}
WOKEN = AgentWoken(agent="a").to_wire()
ACTS = {"type": "agent.activity_started", "agent": "a"}
STREAM = Stream("s", "s", 1, "step")
agents = st.sampled_from("abc")
places = st.integers(0, 4).map(float)
forms = pytest.mark.parametrize("json", [False, True], ids=["msgpack", "json"])


def same(one: Event, other: Event) -> bool:
    """Whether two events of whatever classes are the same, to whoever reads them."""
    names = list(other.__dataclass_fields__)
    return one.type == other.type and [repr(getattr(one, name)) for name in names] == [
        repr(getattr(other, name)) for name in names
    ]


def dues(population: Population) -> dict[str, list[Estimate]]:
    board = population.board
    return {key: [due.estimate for _, due in board.told(key)] for key in board.agents()}


def known(population: Population) -> dict[str, Agent]:
    """Return what is known of agents but for their dues, whose clocks are a population's own."""
    return {key: msgspec.structs.replace(agent, told=None) for key, agent in population.agents.items()}


def taken_one_by_one(payload: bytes) -> Sequence[Event]:
    taken, refused = parse_all(decode(payload)[1])
    assert not refused
    return taken


@forms
@pytest.mark.parametrize("name", PLAIN)
def test_ordinary_events_are_plain(name: str, json: bool) -> None:
    payload = encode(0.5, [PLAIN[name], WOKEN], json=json)
    plain = read_plain(payload)
    assert plain is not None
    assert all(map(same, plain, taken_one_by_one(payload)))
    assert plain[0].type == PLAIN[name].type


@forms
@pytest.mark.parametrize(
    "event",
    [
        {"type": "agent.woken"},
        {**WOKEN, "agent": ""},
        {**WOKEN, "agent": "x" * 65},
        {**WOKEN, "agent": 7},
        {**WOKEN, "mood": "good"},
        {"type": "agent.vanished", "agent": "a"},
        {"type": "step.advanced", "now": -1},
        {"type": "step.advanced", "now": True},
        ACTS,
        {**ACTS, "for": 1, "until": 2},
        {"type": "plan.declared", "agents": ["a"], "probabilities": [1.5]},
        {"type": "plan.declared", "agents": ["a"], "probabilities": [0.5], "at": 1},
        {"type": "path.declared"},
        {"type": "agent.moved", "agent": "a", "xy": [1]},
        [],
        *(EVENTS[name] for name in sorted({LONG, *NEVER_PLAIN})),
    ],
)
def test_what_is_wrong_or_unusual_is_looked_at_by_itself(event: Any, json: bool) -> None:
    assert read_plain(encode(0.0, [WOKEN], json=json)) is not None
    assert read_plain(encode(0.0, [WOKEN, event], json=json)) is None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[",
        b"[0,[]",
        encode(0.0, [WOKEN]) + b"\x00",
        msgpack.packb([0.0, [WOKEN, {"type": "step.advanced", "now": math.nan}]]),
        msgpack.packb([math.inf, [WOKEN]]),
        msgpack.packb([0.0, [WOKEN] * (MAX_EVENTS_PER_MESSAGE + 1)]),
        msgpack.packb([0.0, [{**WOKEN, "agent": b"a"}]]),
        msgpack.packb([0.0, [{"type": "agent.woken", "agent": "\udcff"}]], unicode_errors="surrogateescape"),
        b"[0,[]" + b" " * MAX_MESSAGE_BYTES + b"]",
    ],
)
def test_bytes_that_are_no_message_are_not_plain(payload: bytes) -> None:
    assert read_plain(payload) is None


scraps = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2**65),
    st.floats(),
    st.text(max_size=3),
    st.lists(st.text(max_size=2) | st.floats(0, 2), max_size=2),
)


@st.composite
def nearly_events(draw: st.DrawFn) -> dict[str, Any]:
    """An event of the contract, in which some fields may be anything, or missing, or others."""
    raw = draw(st.sampled_from(list(EVENTS.values()))).to_wire()
    for name in draw(st.lists(st.sampled_from([*raw, "for", "until", "extra"]), max_size=2)):
        raw[name] = draw(scraps)
    return raw


@settings(deadline=None)
@given(st.lists(nearly_events(), max_size=3), st.booleans())
def test_plain_is_what_it_would_be_one_by_one(raws: list[dict[str, Any]], json: bool) -> None:
    try:
        payload = encode(0.0, raws, json=json)
    except ValueError:
        return
    plain = read_plain(payload)
    if plain is not None:
        one_by_one = taken_one_by_one(payload)
        assert len(plain) == len(one_by_one)
        assert all(map(same, plain, one_by_one))


def test_who_keeps_an_agents_name_keeps_the_same_string() -> None:
    population = Population()
    population.apply([Opened(STREAM)], 0.0)
    said = [AgentWoken(agent="Zoë"), ActivityStarted(agent="Zoë", for_=2.0), InvocationStarted(agent="Zoë")]
    heard = [read_plain(encode(0.0, [event])) for event in said]
    for events in heard:
        assert events is not None
        population.apply([Said(STREAM, events)], 0.0)
    name = population.agents["s/Zoë"].name
    assert all(events[0].agent is name for events in heard)  # type: ignore


def test_dues_and_calls_are_those_of_the_same_maps() -> None:
    said: list[Event] = [
        StepAdvanced(now=2.0),
        *PLAIN.values(),
        ActivityStarted(agent="b", for_=3.0),
        InvocationStarted(agent="c"),
    ]
    payload = encode(0.0, said)
    opened = StreamOpened(simulation="s", source="s", incarnation=1, clock="step").to_wire()
    plain, by_map = (Gate(), Population()), (Gate(), Population())
    for gate, population in (plain, by_map):
        population.apply(gate.admit("s", 0, [opened]).admitted, 0.0)
    events = read_plain(payload)
    assert events is not None
    plain[1].apply(plain[0].judge("s", 1, events).admitted, 1.0)
    by_map[1].apply(by_map[0].admit("s", 1, decode(payload)[1]).admitted, 1.0)
    assert plain[0].counts == by_map[0].counts
    assert known(plain[1]) == known(by_map[1])
    assert dues(plain[1]) == dues(by_map[1])
    assert "s/b" in dues(plain[1])
    assert plain[1].take_changes() == by_map[1].take_changes()


words = st.one_of(
    st.builds(AgentWoken, agent=agents),
    st.builds(AgentIdled, agent=agents),
    st.builds(AgentReleased, agent=agents),
    st.builds(AgentMoved, agent=agents, xy=st.tuples(places, places), destination=st.tuples(places, places)),
    st.builds(ActivityStarted, agent=agents, for_=st.integers(0, 6).map(float)),
    st.builds(PathDeclared, nodes=st.lists(agents, unique=True, min_size=2)),
    st.builds(AgentActivated, agent=agents),
    st.builds(PlanDeclared, agents=st.lists(agents, unique=True), not_before=st.none() | st.just(9.0)),
    st.builds(StepAdvanced, now=st.integers(0, 20).map(float)),
    st.builds(InvocationStarted, agent=agents),
    st.builds(InvocationFinished, agent=agents),
)


def known_of(population: Population) -> Any:
    """What a population has come to: dues, agents, and which estimators are admitted."""
    return dues(population), known(population), population.qualities()["s"].admitted


def taken_in(log: Sequence[Event], per_message: int, at_once: int) -> Population:
    """Let a stream be heard in messages of so many events, and so many messages be applied at once."""
    population = Population()
    population.apply([Opened(STREAM)], 0.0)
    said = []
    for at in range(0, len(log), per_message):
        plain = read_plain(encode(0.0, log[at : at + per_message]))
        assert plain is not None
        said.append(Said(STREAM, plain))
    for at in range(0, len(said), at_once):
        population.apply(said[at : at + at_once], 0.0)
    return population


@settings(deadline=None)
@given(st.lists(words, max_size=30), st.integers(1, 30), st.integers(1, 9))
def test_however_many_events_come_at_once_they_come_to_the_same(
    log: list[Event], per_message: int, at_once: int
) -> None:
    assert known_of(taken_in(log, per_message, at_once)) == known_of(taken_in(log, 1, 1))


def test_a_long_stream_comes_to_the_same_in_messages_of_one_and_of_a_hundred() -> None:
    """Long enough for verdicts on estimators, and for what is learned of calls."""
    rng, log = Random(7), list[Event]()
    for step in range(60):
        log.append(StepAdvanced(now=float(step)))
        for agent in rng.sample(range(30), 12):
            name = f"agent{agent}"
            log += [InvocationStarted(agent=name), InvocationFinished(agent=name)]
            if rng.random() < 0.7:
                log.append(ActivityStarted(agent=name, for_=float(rng.randint(1, 9))))
        log += [AgentWoken(agent=f"agent{rng.randrange(30)}") for _ in range(rng.randrange(3))]
    by_one, by_hundred = taken_in(log, 1, 1), taken_in(log, 100, 1)
    assert known_of(by_hundred) == known_of(by_one)
    assert by_one.qualities()["s"].blend_figures().pairs > 1000
