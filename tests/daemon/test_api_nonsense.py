"""Nonsense for the API: nothing that is said or asked makes it fail."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalesim_client.events import EVENT_TYPES
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.settings import RunMode
from tests.daemon.api_calls import READS, escaped
from tests.daemon.still import add_engine, ask, open_stream, still_sidecar

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
FIELDS = (
    "agent",
    "now",
    "for",
    "until",
    "xy",
    "destination",
    "speed",
    "vision",
    "agents",
    "at",
    "probabilities",
)
MORE_FIELDS = ("token_ids", "text", "edges", "nodes", "hop", "part", "of", "events", "clock", "incarnation")
EVENTS = st.dictionaries(
    st.sampled_from(FIELDS + MORE_FIELDS) | st.text(max_size=8), ANYTHING, max_size=6
).flatmap(lambda fields: st.sampled_from(sorted(EVENT_TYPES)).map(lambda name: {**fields, "type": name}))
SANE_AGENT = st.sampled_from(["a", "b", "ä/..", "\x00", "x" * 256])
HUGE = st.sampled_from([0.0, 5e-324, 1e308, 1.7976931348623157e308, 2**53 + 1, 10**30])
LIKELY = st.one_of(
    st.builds(lambda now: {"type": "step.advanced", "now": now}, HUGE),
    st.builds(
        lambda agent, span: {"type": "agent.activity_started", "agent": agent, "for": span}, SANE_AGENT, HUGE
    ),
    st.builds(
        lambda agent, name: {"type": name, "agent": agent}, SANE_AGENT, st.sampled_from(sorted(EVENT_TYPES))
    ),
    st.builds(
        lambda agent, x, y, speed: {
            "type": "agent.moved",
            "agent": agent,
            "xy": [x, y],
            "destination": [y, x],
            "speed": speed,
            "vision": x,
        },
        *(SANE_AGENT, HUGE, HUGE, HUGE),
    ),
    st.builds(lambda agent, at: {"type": "plan.declared", "agents": [agent], "at": at}, SANE_AGENT, HUGE),
    st.builds(
        lambda one, two, hop: {"type": "path.declared", "edges": [[one, two]], "hop": hop},
        *(SANE_AGENT,) * 2,
        HUGE,
    ),
    st.builds(
        lambda agent, ids: {"type": "memory.bound", "agent": agent, "token_ids": ids},
        SANE_AGENT,
        st.lists(st.integers(0, 2**32), max_size=9),
    ),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.lists(st.lists(LIKELY | EVENTS, max_size=4), max_size=6), packed=st.booleans())
def test_no_event_makes_the_api_fail(
    tmp_path: Path, messages: list[list[dict[str, Any]]], packed: bool
) -> None:
    async def scene() -> None:
        sidecar = still_sidecar(tmp_path)
        try:
            sidecar.mode = RunMode.OBSERVE
            add_engine(sidecar)
            open_stream(sidecar, "anonymous")
            bodies = [pack([0, message], packed) for message in messages]
            taken = await ask(
                sidecar,
                *(lambda client, body=body: client.post("/v1/events", content=body) for body in bodies),
            )
            assert {answer.status_code for answer in taken} <= {200, 400}
            sidecar.cycle()
            answers = await ask(
                sidecar,
                *(lambda client, path=path: client.get(path) for path in READS),
            )
            assert {answer.status_code for answer in answers} <= {200, 503}
            keys = [agent["key"] for agent in answers[READS.index("/v1/agents")].json()["agents"]]
            details = await ask(
                sidecar,
                *(lambda client, key=key: client.get(_agent_url(key)) for key in keys),
            )
            assert {detail.status_code for detail in details} <= {200}
        finally:
            sidecar.library.close()

    asyncio.run(scene())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    route=st.sampled_from(["/v1/agents", "/v1/plan", "/v1/agents/sim/a", "/v1/nothing"]),
    params=st.dictionaries(
        st.sampled_from(["limit", "offset", "source", "seq"]), st.text() | st.integers().map(str)
    ),
    body=st.binary(max_size=200),
)
def test_no_query_or_body_makes_the_api_fail(
    sidecar: Sidecar, route: str, params: dict[str, str], body: bytes
) -> None:
    async def scene() -> list[httpx.Response]:
        return await ask(
            sidecar,
            lambda client: client.get(route, params=params),
            lambda client: client.post("/v1/events", params=params, content=body),
        )

    read, taken = asyncio.run(scene())
    assert read.status_code in (200, 404, 422)
    assert taken.status_code in (200, 400, 422)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/v1/pins/sim/a", b'{"seconds": NaN}'),
        ("PUT", "/v1/pins/sim/a", b'{"seconds": 1e999}'),
        ("PUT", "/v1/pins/sim/a", b'{"\\ud800": 1}'),
        ("POST", "/v1/prefetch", b'{"key": "\\ud800"}'),
        ("POST", "/v1/evict", b'{"key": "sim/a", "within": -Infinity}'),
        ("POST", "/v1/evict", b'{"key": "sim/a", "kind": "a token that was pasted here"}'),
    ],
)
def test_what_an_operator_sends_is_refused_and_not_repeated(
    sidecar: Sidecar, method: str, path: str, body: bytes
) -> None:
    json_body = {"content": body, "headers": {"content-type": "application/json"}}
    (answer,) = asyncio.run(ask(sidecar, lambda client: client.request(method, path, **json_body)))
    assert answer.status_code == 422
    assert {"loc", "msg", "type"} == set(answer.json()["detail"][0])
    assert "pasted" not in answer.text


def pack(message: Any, packed: bool) -> bytes:
    if packed:
        try:
            return bytes(msgpack.packb(message))
        except (OverflowError, ValueError):
            pass
    return json.dumps(message).encode()


def _agent_url(key: str) -> httpx.URL:
    return httpx.URL("/v1/agents/", raw_path=b"/v1/agents/" + escaped(key).replace(b"%2F", b"/", 1))
