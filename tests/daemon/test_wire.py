from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalesim_client.events import (
    EVENT_TYPES,
    ActivityStarted,
    AgentMoved,
    AgentRegistered,
    Event,
    PathDeclared,
)
from scalesim_daemon.wire import Refused, parse, parse_all, said_at


def test_a_map_becomes_its_event() -> None:
    assert parse({"type": "agent.activity_started", "agent": "a", "for": 3}) == ActivityStarted(
        agent="a", for_=3.0
    )
    assert parse({"type": "agent.moved", "agent": "a", "xy": [1, 2.5]}) == AgentMoved(
        agent="a", xy=(1.0, 2.5)
    )
    assert parse({"type": "path.declared", "edges": [["a", "b"]]}) == PathDeclared(edges=[("a", "b")])


def test_unknown_fields_are_ignored() -> None:
    assert parse({"type": "agent.registered", "agent": "a", "mood": {"x": [1]}}) == AgentRegistered(agent="a")


@pytest.mark.parametrize(
    ("raw", "type_", "reason"),
    [
        ([], "?", "must be a map"),
        (None, "?", "must be a map"),
        ({}, "?", "needs a 'type'"),
        ({"type": 7}, "?", "needs a 'type'"),
        ({"type": "agent.registered"}, "agent.registered", "agent"),
        ({"type": "agent.registered", "agent": 7}, "agent.registered", "Expected `str`"),
        ({"type": "agent.registered", "agent": ""}, "agent.registered", "1 to 256"),
        ({"type": "agent.registered", "agent": "ü" * 129}, "agent.registered", "1 to 256"),
        ({"type": "agent.registered", "agent": "\ud800"}, "agent.registered", "surrogates"),
        ({"type": "step.advanced", "now": float("nan")}, "step.advanced", "finite"),
        ({"type": "step.advanced", "now": float("inf")}, "step.advanced", "finite"),
        ({"type": "step.advanced", "now": -1}, "step.advanced", "not negative"),
        ({"type": "step.advanced", "now": 10**400}, "step.advanced", "out of range"),
        ({"type": "step.advanced", "now": True}, "step.advanced", "Expected `float`"),
        ({"type": "agent.activity_started", "agent": "a"}, "agent.activity_started", "exactly one"),
        (
            {"type": "agent.activity_started", "agent": "a", "for": 1, "until": 2},
            "agent.activity_started",
            "exactly",
        ),
        ({"type": "plan.declared", "agents": ["a"], "probabilities": [1.5]}, "plan.declared", "0..1"),
        ({"type": "path.declared", "nodes": ["a", ""]}, "path.declared", "1 to 256"),
        ({"type": "path.declared", "edges": [["a", "x" * 257]]}, "path.declared", "1 to 256"),
    ],
)
def test_what_is_wrong_is_refused_by_name_and_reason(raw: object, type_: str, reason: str) -> None:
    refused = parse(raw)
    assert isinstance(refused, Refused)
    assert (refused.type, refused.unknown) == (type_, False)
    assert reason in refused.reason


def test_unknown_types_are_marked_and_cut() -> None:
    refused = parse({"type": "x" * 1000})
    assert isinstance(refused, Refused)
    assert refused.unknown and refused.type == "x" * 64


def test_a_bad_event_costs_its_neighbours_nothing() -> None:
    taken, refused = parse_all(
        [{"type": "agent.woken", "agent": "a"}, 7, {"type": "agent.idled", "agent": "b"}]
    )
    assert [event.type for event in taken] == ["agent.woken", "agent.idled"]
    assert len(refused) == 1


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
fields = sorted({name for cls in EVENT_TYPES.values() for name in cls.__dataclass_fields__} | {"for"})


@given(st.sampled_from(sorted(EVENT_TYPES)), st.dictionaries(st.sampled_from(fields), anything, max_size=6))
def test_whatever_comes_is_taken_or_refused(type_: str, rest: dict[str, Any]) -> None:
    assert isinstance(parse({**rest, "type": type_}), Event | Refused)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (None, None),
        (3, 3.0),
        (0.5, 0.5),
        (-1, None),
        (float("nan"), None),
        (10**400, None),
        (True, None),
        ("1", None),
    ],
)
def test_the_time_at_which_a_restated_event_was_said(now: object, expected: float | None) -> None:
    assert said_at({"type": "agent.woken", "now": now}) == expected
