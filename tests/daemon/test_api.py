"""The API over a real sidecar: what it answers, what it takes, and what it says to nonsense."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from time import monotonic, time
from typing import Any

import httpx
import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalesim_adapters.base import MemoryKind
from scalesim_client.events import EVENT_TYPES, MAX_MESSAGE_BYTES
from scalesim_daemon.api import build_api
from scalesim_daemon.driver import Record
from scalesim_daemon.loop import EnginePlan, Sidecar
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.settings import RunMode
from scalesim_daemon.view import EngineView
from tests.daemon.live import daemon, emulator, until
from tests.daemon.still import BLOCK, add_engine, ask, open_stream, say, still_sidecar, stored, tokens

STEP = Step(Action.LOAD, MemoryKind.PREFIX_KV, "sim/a", 0, 2, math.inf, "due next", ("sim/b",))


@pytest.fixture
def sidecar(tmp_path: Path) -> Sidecar:
    return still_sidecar(tmp_path)


def get(sidecar: Sidecar, path: str, **params: Any) -> httpx.Response:
    return asyncio.run(ask(sidecar, lambda client: client.get(path, params=params)))[0]


def post(sidecar: Sidecar, content: Any, **params: Any) -> httpx.Response:
    return asyncio.run(
        ask(sidecar, lambda client: client.post("/v1/events", content=content, params=params))
    )[0]


# Events


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


# Agents


def test_agents_come_by_distance_page_by_page(sidecar: Sidecar) -> None:
    open_stream(sidecar)
    for number in range(5):
        say(sidecar, {"type": "agent.activity_started", "agent": f"a{number}", "until": 10.0 - number})
    say(sidecar, {"type": "agent.registered", "agent": "far"})
    page = get(sidecar, "/v1/agents", limit=2, offset=1).json()
    assert (page["total"], page["offset"], page["limit"]) == (6, 1, 2)
    assert [agent["key"] for agent in page["agents"]] == ["sim/a3", "sim/a2"]
    last = get(sidecar, "/v1/agents", offset=5).json()["agents"]
    assert [(agent["key"], agent["distance"]) for agent in last] == [("sim/far", None)]
    assert get(sidecar, "/v1/agents", offset=2**62).json()["agents"] == []


def test_agents_that_only_a_path_names_are_listed(sidecar: Sidecar) -> None:
    open_stream(sidecar)
    say(
        sidecar,
        {"type": "path.declared", "nodes": ["a", "b"]},
        {"type": "agent.activated", "agent": "a"},
    )
    assert "sim/b" in [agent["key"] for agent in get(sidecar, "/v1/agents").json()["agents"]]
    assert get(sidecar, "/v1/agents/sim/b").json()["why"].startswith("path")


def test_an_agent_is_explained(sidecar: Sidecar) -> None:
    view = add_engine(sidecar).view
    open_stream(sidecar)
    say(
        sidecar,
        {"type": "step.advanced", "now": 1.0},
        {"type": "memory.bound", "agent": "a", "token_ids": tokens(0, 3), "lora": "/l", "lora_name": "ell"},
        {"type": "agent.activity_started", "agent": "a", "for": 4.0},
    )
    bind(sidecar, "sim/a", view)
    view.happened(replace(stored("sim/a", 2), lora_name="ell"))
    view.loras.used("ell")
    sidecar.pins["sim/a"] = time() + 60
    other = Step(Action.TOUCH, MemoryKind.PREFIX_KV, "sim/c", 0, 1, 1.0, "not about a")
    for step in (other, STEP):
        sidecar.decisions.append(Record(1.0, "one", step, "done", 0.5, 8))
    answer = get(sidecar, "/v1/agents/sim/a").json()
    assert (answer["distance"], answer["due"], answer["unit"]) == (4.0, 5.0, "step")
    assert answer["clock"] == {"kind": "step", "now": 1.0, "pace": 1.0}
    assert answer["why"].startswith("activity") and "due at 5, the clock shows 1" in answer["why"]
    assert answer["items"] == ["lora:ell", "prefix_kv"]
    assert answer["engines"] == {"one": {"blocks": 3, "resident_blocks": 2}}
    assert answer["pinned_until"] == sidecar.pins["sim/a"]
    prefix, lora = answer["places"]
    assert (prefix["residency"], prefix["tiers"], prefix["resident_blocks"]) == ("resident", ["device"], 2)
    assert (lora["item"], lora["registered"], lora["tiers"]) == ("ell", False, ["device", "host"])
    assert [(found["result"], found["step"]["reason"]) for found in answer["decisions"]] == [
        ("done", "due next")
    ]
    victim = get(sidecar, "/v1/agents/sim/b")
    assert victim.status_code == 404


def test_what_is_not_known_is_shown_as_unknown(sidecar: Sidecar) -> None:
    view = add_engine(sidecar).view
    open_stream(sidecar)
    say(sidecar, {"type": "memory.bound", "agent": "a", "token_ids": tokens(0, 3)})
    bind(sidecar, "sim/a", view)
    view.unreachable("connection refused")
    (place,) = get(sidecar, "/v1/agents/sim/a").json()["places"]
    assert place["residency"] == "unknown"


def test_an_overdue_agent_counts_as_far_and_says_so(sidecar: Sidecar) -> None:
    open_stream(sidecar)
    say(
        sidecar,
        {"type": "agent.activity_started", "agent": "a", "for": 1.0},
        {"type": "step.advanced", "now": 50.0},
        {"type": "step.advanced", "now": 51.0},
    )
    answer = get(sidecar, "/v1/agents/sim/a").json()
    assert answer["distance"] is None and answer["seconds"] is None
    assert answer["why"].startswith("overdue") and "did not call" in answer["why"]


def test_an_agent_known_from_its_requests_alone_is_shown(sidecar: Sidecar) -> None:
    view = add_engine(sidecar).view
    assert view.tree is not None
    view.tree.declare("quiet/one", (None, None), tokens(0, 2))
    answer = get(sidecar, "/v1/agents/quiet/one").json()
    assert answer["items"] == ["prefix_kv"]
    assert answer["why"].startswith("no invocation is foreseen")


@pytest.mark.parametrize(
    "path", ["sim/nobody", "sim/", "sim/..", "%00/%ff", "sim/a/b/c", "sim/" + "x" * 3000]
)
def test_an_unknown_agent_is_named(sidecar: Sidecar, path: str) -> None:
    answer = get(sidecar, f"/v1/agents/{path.replace('..', '%2E%2E')}")
    assert answer.status_code == 404
    assert "is not known" in answer.json()["detail"]


def test_agents_with_odd_ids_are_found(sidecar: Sidecar) -> None:
    open_stream(sidecar)
    for odd in ("..", "a/b", "/", "ä ö?#&=%2F", "\u202e", "{x}", "a\nb", "\n"):
        say(sidecar, {"type": "agent.woken", "agent": odd})
        url = httpx.URL("/v1/agents/sim/", raw_path=b"/v1/agents/sim/" + _escaped(odd))
        answer = asyncio.run(ask(sidecar, lambda client, url=url: client.get(url)))[0]
        assert answer.status_code == 200, odd
        assert answer.json()["key"] == f"sim/{odd}"


# Engines, plan, report, sources


def test_engines_show_what_is_known_of_them(sidecar: Sidecar) -> None:
    view = add_engine(sidecar).view
    add_engine(sidecar, "two", info=None)
    view.happened(stored("sim/a", 2))
    view.loras.used("ell")
    view.ledger.loaded("sim/a", 8)
    one, two = get(sidecar, "/v1/engines").json()["engines"]
    assert (one["reachable"], one["known"], one["version"]) == (True, True, "0.32.0")
    assert one["blocks"] == {"size": BLOCK, "capacity": 16, "resident": 2, "free": 14}
    assert one["loras"]["device"] == ["ell"] and one["loras"]["device_places"] == 2
    assert one["capabilities"] == {"prefix_kv": ["load", "events"], "lora": ["list"], "model": []}
    assert one["missing"][0]["what"] == "KV event replay"
    assert one["ledger"]["prefetched_tokens_pending"] == 8
    assert (two["reachable"], two["unreachable_why"]) == (False, "not probed yet")
    assert two["blocks"] == {"size": None, "capacity": None, "resident": None, "free": None}


def test_the_plan_is_shown_with_reasons(sidecar: Sidecar) -> None:
    add_engine(sidecar)
    sidecar.plans = {"one": EnginePlan(blocks=[STEP] * 3)}
    (engine,) = get(sidecar, "/v1/plan", limit=2).json()["engines"]
    assert (len(engine["blocks"]), engine["blocks_total"], engine["in_flight"]) == (2, 3, [])
    assert engine["blocks"][0] == {
        "action": "load",
        "kind": "prefix_kv",
        "key": "sim/a",
        "start": 0,
        "stop": 2,
        "seconds": None,
        "reason": "due next",
        "victims": ["sim/b"],
    }


def test_the_report_sums_over_engines_and_weighs_by_pairs(sidecar: Sidecar) -> None:
    assert get(sidecar, "/v1/report").json()["order_accuracy"] is None
    for name in ("one", "two"):
        ledger = add_engine(sidecar, name).view.ledger
        ledger.loaded("sim/a", 100)
        ledger.invoked("sim/a", 60)
        ledger.loaded("sim/b", 10)
    for simulation, right in (("good", True), ("bad", False)):
        open_stream(sidecar, simulation)
        foreseen = ("x", "y") if right else ("y", "x")
        for now, agent in enumerate(foreseen, 1):
            event = {"type": "agent.activity_started", "agent": agent, "until": float(now)}
            say(sidecar, event, simulation=simulation)
        for now, agent in enumerate(("x", "y"), 1):
            say(
                sidecar,
                {"type": "step.advanced", "now": float(now)},
                {"type": "invocation.started", "agent": agent},
                {"type": "invocation.finished", "agent": agent},
                simulation=simulation,
            )
    scores = sidecar.population.scores()
    assert scores["good"].accuracy == 1.0 and scores["bad"].accuracy == 0.0
    report = get(sidecar, "/v1/report").json()
    assert report["prefetches"] == 4 and report["prefetches_used"] == 2 and report["prefetches_wasted"] == 0
    assert report["prefetched_tokens"] == 220 and report["prefetched_tokens_wasted"] == 80
    assert report["prefetches_pending"] == 2 and report["prefetched_tokens_pending"] == 20
    assert report["order_pairs"] == 2 and report["order_accuracy"] == 0.5


def test_sources_show_clock_and_gaps(sidecar: Sidecar) -> None:
    open_stream(sidecar)
    sidecar.admit("sim", 0, [{"type": "step.advanced", "now": 2.0}])
    sidecar.admit("sim", 4, [{"type": "step.advanced", "now": 3.0}])
    (source,) = (answer := get(sidecar, "/v1/sources").json())["sources"]
    assert (source["source"], source["simulation"], source["stale"]) == ("sim", "sim", True)
    assert source["clock"]["now"] == 3.0
    assert answer["counts"]["gaps"] == 1


# Health


def test_health_is_the_loops_tick(sidecar: Sidecar) -> None:
    assert get(sidecar, "/health").json()["alive"] is True
    sidecar.ticked_at = monotonic() - 60
    answer = get(sidecar, "/health")
    assert answer.status_code == 503
    assert answer.json()["tick_age"] >= 60


def test_ready_names_all_that_is_missing(sidecar: Sidecar) -> None:
    answer = get(sidecar, "/ready")
    assert answer.status_code == 503
    text = " ".join(answer.json()["reasons"])
    assert "feed" in text and "store" in text and "--engine vllm=URL" in text
    add_engine(sidecar, info=None)
    assert "engine one does not answer: not probed yet" in get(sidecar, "/ready").json()["reasons"]


def test_a_whole_daemon_is_ready_and_says_so_when_its_engine_goes(tmp_path: Path) -> None:
    async def scene() -> None:
        with emulator(tmp_path) as engine:
            async with daemon(tmp_path, engine.url) as (_, api):

                async def ready() -> bool:
                    return (await api.get("/ready")).status_code == 200

                async def not_ready() -> bool:
                    return not await ready()

                await until(ready)
                assert (await api.get("/health")).status_code == 200
                await asyncio.to_thread(engine.kill)
                await until(not_ready)
                assert "does not answer" in (await api.get("/ready")).text
                assert (await api.get("/health")).status_code == 200

    asyncio.run(scene())


# Nonsense

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
READS = (
    "/health",
    "/ready",
    "/metrics",
    "/v1/agents",
    "/v1/engines",
    "/v1/plan",
    "/v1/report",
    "/v1/sources",
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


def test_openapi_is_complete(sidecar: Sidecar) -> None:
    spec = build_api(sidecar).openapi()
    assert set(spec["paths"]) == {
        *(path for path in READS if path != "/v1/agents"),
        *("/v1/agents", "/v1/agents/{simulation}/{agent}", "/v1/events"),
    }
    for path, operations in spec["paths"].items():
        for operation in operations.values():
            assert operation["description"], path
            if path != "/metrics":
                assert "$ref" in operation["responses"]["200"]["content"]["application/json"]["schema"], path
    assert "413" in spec["paths"]["/v1/events"]["post"]["responses"]


def bind(sidecar: Sidecar, key: str, view: EngineView) -> None:
    """Tell a view what the loop would tell it."""
    memory = sidecar.population.agents[key].memory
    assert memory is not None
    view.bound(key, memory)


def pack(message: Any, packed: bool) -> bytes:
    if packed:
        try:
            return bytes(msgpack.packb(message))
        except (OverflowError, ValueError):
            pass
    return json.dumps(message).encode()


def _agent_url(key: str) -> httpx.URL:
    return httpx.URL("/v1/agents/", raw_path=b"/v1/agents/" + _escaped(key).replace(b"%2F", b"/", 1))


def _escaped(text: str) -> bytes:
    return "".join(f"%{byte:02X}" for byte in text.encode()).encode()
