"""Events by the API: what it takes, what it refuses, and how it names the fault."""

import json
from collections.abc import AsyncIterator
from typing import Any

import msgpack
import pytest

from scalesim_client.events import MAX_MESSAGE_BYTES
from scalesim_daemon.loop import Sidecar
from tests.daemon.api_calls import get, post


def test_a_message_is_taken_as_on_the_feed_in_both_formats(sidecar: Sidecar) -> None:
    opened = {
        "type": "stream.opened",
        "simulation": "sim",
        "source": "s",
        "incarnation": 1,
        "clock": "step",
        "schema_version": "1.0",
    }
    first = post(sidecar, json.dumps([0, [opened]]), source="s", seq=0)
    assert (first.status_code, first.json()) == (200, {"accepted": 1, "refused": [], "resync": False})
    events = [
        {"type": "agent.activity_started", "agent": "a", "for": 3},
        {"type": "step.advanced", "now": 1.0},
    ]
    second = post(sidecar, msgpack.packb([0.0, events]), source="s", seq=1)
    assert second.json() == {"accepted": 2, "refused": [], "resync": False}
    assert get(sidecar, "/v1/agents/sim/a").json()["distance"] == 2.0
    again = post(sidecar, msgpack.packb([0.0, events]), source="s", seq=1)
    assert again.json()["accepted"] == 0
    after_a_gap = post(sidecar, msgpack.packb([0.0, events]), source="s", seq=5)
    assert after_a_gap.json() == {"accepted": 2, "refused": [], "resync": True}


@pytest.mark.parametrize(
    "pack", [json.dumps, msgpack.packb, lambda event: "\n " + json.dumps(event, indent=1)]
)
def test_one_bare_event_is_a_message(sidecar: Sidecar, pack: Any) -> None:
    answer = post(sidecar, pack({"type": "agent.woken", "agent": "a"}))
    assert answer.json() == {"accepted": 1, "refused": [], "resync": False}
    assert get(sidecar, "/v1/agents/anonymous/a").json()["distance"] == 0.0


def test_an_unopened_numbered_source_is_asked_to_resync(sidecar: Sidecar) -> None:
    answer = post(sidecar, '[0,[{"type":"agent.woken","agent":"a"}]]', source="new", seq=3)
    assert answer.json() == {"accepted": 0, "refused": [], "resync": True}


def test_what_is_refused_is_named_and_its_neighbours_are_taken(sidecar: Sidecar) -> None:
    events = [
        {"type": "agent.woken", "agent": "a"},
        {"type": "agent.vanished", "agent": "a"},
        {"type": "step.advanced", "now": "soon"},
    ]
    answer = post(sidecar, json.dumps([0, events])).json()
    assert answer["accepted"] == 1
    assert [refused["type"] for refused in answer["refused"]] == ["agent.vanished", "step.advanced"]
    assert "now" in answer["refused"][1]["reason"]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "array"),
        (b"hello", "array"),
        (b'{"type": "agent.woken"}', "`agent`"),
        (b'{"type": "step.advanced", "now": "x"}', "$.now"),
        (b'{"type": "step.advanced", "now": -1}', "now"),
        (b'{"type": "step.advanced", "now": NaN}', "NaN"),
        (b'{"agent": "a"}', "'type'"),
        (b'{"type": "agent.woken", "agent": "a"}, {"type": "agent.woken", "agent": "b"}', "[ts,"),
        (b'{"type": "agent.woken", "agent": "a"', "malformed JSON"),
        (b"[0]", "[ts,"),
        (b'["now", []]', "ts"),
        (b'[0, {"type": "agent.woken"}]', "events"),
        (b"[0, [7]]", "map"),
        (b"\x81\xa4type", "malformed msgpack"),
        (b"[" * 100_000, "malformed JSON"),
        (json.dumps([0, [{"type": "agent.idled", "agent": "a"}] * 1001]).encode(), "1000"),
        (b'{"type": "agent.woken", "agent": "\\ud800"}', "JSON"),
        (b'{"type": "step.advanced", "now": 1' + b"0" * 400 + b"}", "now"),
    ],
)
def test_malformed_messages_are_refused_and_the_fault_is_named(
    sidecar: Sidecar, content: bytes, named: str
) -> None:
    answer = post(sidecar, content)
    assert answer.status_code == 400
    assert named in answer.json()["detail"]
    assert sidecar.gate.counts["malformed"] == 1


def test_an_unknown_type_alone_is_not_malformed(sidecar: Sidecar) -> None:
    answer = post(sidecar, '{"type": "weather.changed"}')
    assert answer.status_code == 200
    assert answer.json()["refused"][0]["type"] == "weather.changed"
    assert get(sidecar, "/v1/sources").json()["unknown_types"] == {"weather.changed": 1}


def test_a_body_beyond_the_limit_is_refused_while_it_comes_in(sidecar: Sidecar) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100 * 2**20:
            sent += 2**20
            yield b" " * 2**20

    answer = post(sidecar, endless())
    assert answer.status_code == 413
    assert str(MAX_MESSAGE_BYTES) in answer.json()["detail"]
    assert sent <= 6 * 2**20


def test_the_limit_itself_is_taken(sidecar: Sidecar) -> None:
    event = '[0,[{"type":"memory.bound","agent":"a","text":"%s"}]]'
    fits = event % ("x" * (MAX_MESSAGE_BYTES - len(event) + 2))
    assert len(fits) == MAX_MESSAGE_BYTES
    assert post(sidecar, fits).json()["accepted"] == 1
