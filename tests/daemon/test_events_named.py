"""Whatever is wrong with an event, the answer names the field, and what stands beside it is taken."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalesim_client.events import EVENT_TYPES
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.wire import Refused, parse
from tests.daemon.api_calls import post
from tests.daemon.still import ask

AGENT = {"agent": "a"}
WHOLE: dict[str, dict[str, Any]] = {
    "stream.opened": {
        "simulation": "s",
        "source": "s",
        "incarnation": 1,
        "clock": "step",
        "schema_version": "1.0",
    },
    "stream.closed": {},
    "state.snapshot": {"part": 0, "of": 1, "events": [], "now": 1.0},
    "step.advanced": {"now": 1.0},
    "agent.registered": AGENT,
    "agent.released": AGENT,
    "agent.activity_started": {**AGENT, "for": 2.0, "activity": "cooking"},
    "agent.moved": {**AGENT, "xy": [0, 0], "place": "p", "destination": [1, 1], "speed": 1.0, "vision": 1.0},
    "agent.woken": AGENT,
    "agent.idled": AGENT,
    "path.declared": {"path": "p", "nodes": ["a", "b"], "hop": 1.0},
    "agent.activated": {**AGENT, "path": "p", "served": True},
    "plan.declared": {"agents": ["a"], "at": 3.0, "not_before": 1.0},
    "invocation.started": {**AGENT, "request": "r"},
    "invocation.finished": {**AGENT, "request": "r"},
    "memory.bound": {**AGENT, "lora": "/l", "lora_name": "l", "text": "t", "cache_salt": "s", "model": "m"},
    "memory.unbound": AGENT,
}
FIELDS = [(name, field) for name, fields in WHOLE.items() for field in fields]
# Of no field's type, and of no range.
WRONG = st.dictionaries(st.text(max_size=3), st.none(), max_size=2) | st.just([[[]]])
TOO_LONG = ("agent", "simulation", "source", "path", "lora_name")
NEGATIVE = ("now", "for", "speed", "vision", "hop", "at", "not_before", "part")


def test_the_events_to_be_spoiled_are_whole_and_of_all_types() -> None:
    assert WHOLE.keys() == EVENT_TYPES.keys()
    assert not [found for name in WHOLE if isinstance(found := parse({"type": name, **WHOLE[name]}), Refused)]


def spoiled(where: tuple[str, str], wrong: Any) -> tuple[str, dict[str, Any]]:
    name, field = where
    return field, {"type": name, **WHOLE[name], field: wrong}


SPOILED = st.one_of(
    st.builds(spoiled, st.sampled_from(FIELDS), WRONG),
    st.builds(spoiled, st.sampled_from([pair for pair in FIELDS if pair[1] in TOO_LONG]), st.just("ä" * 129)),
    st.builds(
        spoiled,
        st.sampled_from([pair for pair in FIELDS if pair[1] in NEGATIVE]),
        st.floats(-1e300, -1).map(int),
    ),
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(faults=st.lists(SPOILED, min_size=1, max_size=20))
def test_the_field_is_named_and_the_neighbours_are_taken(
    sidecar: Sidecar, faults: list[tuple[str, dict[str, Any]]]
) -> None:
    good = {"type": "agent.registered", "agent": "neighbour"}
    message = json.dumps([0, [good, *(event for _, event in faults), good]])
    answer = post(sidecar, message)
    assert answer.status_code == 200
    said = answer.json()
    assert said["accepted"] == 2
    for (field, event), refused in zip(faults, said["refused"], strict=True):
        assert refused["type"] == event["type"]
        assert field in refused["reason"]
    (alone,) = asyncio.run(
        ask(sidecar, lambda client: client.post("/v1/events", content=json.dumps(faults[0][1])))
    )
    assert alone.status_code == 400
    assert faults[0][0] in alone.json()["detail"]
    assert "anonymous/neighbour" in sidecar.population.agents
