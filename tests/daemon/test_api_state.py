"""The daemon's state by the API: engines, plan, report, sources, health, and what describes them all."""

import asyncio
from pathlib import Path
from time import monotonic

import pytest

from scalesim_daemon.api import build_api
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.planning import EnginePlan
from tests.daemon.api_calls import READS, STEP, get
from tests.daemon.live import daemon, emulator, until
from tests.daemon.still import BLOCK, add_engine, open_stream, say, stored


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
    shares = {
        source["source"]: source["order_accuracy"] for source in get(sidecar, "/v1/sources").json()["sources"]
    }
    assert shares == {"good": 1.0, "bad": 0.0}
    report = get(sidecar, "/v1/report").json()
    assert report["prefetches"] == 4 and report["prefetches_used"] == 2 and report["prefetches_wasted"] == 0
    assert report["prefetched_tokens"] == 220 and report["prefetched_tokens_wasted"] == 80
    assert report["prefetches_pending"] == 2 and report["prefetched_tokens_pending"] == 20
    assert report["order_pairs"] == 2 and report["order_accuracy"] == 0.5


def test_estimators_show_what_their_estimates_came_to(sidecar: Sidecar) -> None:
    assert get(sidecar, "/v1/estimators").json() == {"estimators": []}
    open_stream(sidecar)
    for now, agent in enumerate("xyx"):
        say(
            sidecar,
            {"type": "step.advanced", "now": 2.0 * now},
            {"type": "invocation.started", "agent": agent},
            {"type": "agent.activity_started", "agent": agent, "for": 5.0},
        )
    found = get(sidecar, "/v1/estimators").json()["estimators"]
    names = ["declared", "activity", "interaction", "path", "woken", "history", "blend"]
    assert [estimator["estimator"] for estimator in found] == names
    activity, history, blend = found[1], found[5], found[6]
    assert (activity["source"], activity["simulation"], activity["clock"]) == ("sim", "sim", "step")
    assert (activity["admitted"], history["admitted"], blend["admitted"]) == (True, False, True)
    assert activity["accuracy"] == {
        "pairs": 1,
        "order_accuracy": 0.0,
        "accuracy_without": 0.0,
        "recency_accuracy": 0.0,
        "invocations": 3,
        "coverage": pytest.approx(1 / 3),
        "lead_error": 1.0,
        "hit_rate": 1.0,
        "confidence": 0.9,
        "brier": pytest.approx(0.01),
    }
    assert blend["accuracy"]["pairs"] == 2 and history["accuracy"]["coverage"] == 0.0


def test_sources_show_clock_and_gaps(sidecar: Sidecar) -> None:
    open_stream(sidecar)
    sidecar.admit("sim", 0, [{"type": "step.advanced", "now": 2.0}])
    sidecar.admit("sim", 4, [{"type": "step.advanced", "now": 3.0}])
    (source,) = (answer := get(sidecar, "/v1/sources").json())["sources"]
    assert (source["source"], source["simulation"], source["stale"]) == ("sim", "sim", True)
    assert source["clock"]["now"] == 3.0
    assert answer["counts"]["gaps"] == 1


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


def test_openapi_is_complete(sidecar: Sidecar) -> None:
    spec = build_api(sidecar).openapi()
    assert set(spec["paths"]) == {
        *(path for path in READS if path != "/v1/agents"),
        *("/v1/agents", "/v1/agents/{simulation}/{agent}", "/v1/events", "/v1/update"),
        *("/v1/pause", "/v1/resume", "/v1/observe", "/v1/pins", "/v1/pins/{simulation}/{agent}"),
        *("/v1/stream", "/v1/config", "/v1/config/reload", "/v1/role", "/v1/history", "/v1/placement"),
        *("/v1/prefetch", "/v1/evict", "/v1/operations", "/v1/operations/{identity}"),
    }
    for path, operations in spec["paths"].items():
        for operation in operations.values():
            assert operation["description"], path
            if path not in ("/metrics", "/v1/stream"):
                done = operation["responses"].get("200") or operation["responses"]["202"]
                assert "$ref" in done["content"]["application/json"]["schema"], path
    assert "413" in spec["paths"]["/v1/events"]["post"]["responses"]
