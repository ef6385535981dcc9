"""Prefetch and evict by operators: through the planner and the driver like all else, and refused with the reason."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from scalesim_adapters.base import (
    Capability,
    Inventory,
    LoraItem,
    LoraPlaces,
    MemoryKind,
    Outcome,
    PrefixItem,
    Pressure,
    Tier,
)
from scalesim_client import Publisher
from scalesim_daemon.admin import operations
from scalesim_daemon.admin.operations import Operations, State, TooManyOperations
from scalesim_daemon.admin.orders import Orders, recorded, settle
from scalesim_daemon.driver import Driver
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.records import Record
from scalesim_daemon.settings import RunMode
from tests.adapters.emulator_rig import make_lora
from tests.daemon.live import daemon, emulator, resident, until
from tests.daemon.still import INFO, add_engine, ask, open_stream, say, stored, tokens

BLOCK = 32
BLOCKS = 20


def prefix(agent: int) -> list[int]:
    return [agent * 1000 + position for position in range(BLOCKS * BLOCK)]


async def ended(api: httpx.AsyncClient, operation: dict[str, Any]) -> dict[str, Any]:
    """Poll an operation until it is over."""
    found: dict[str, Any] = {}

    async def over() -> bool:
        found.update((await api.get(f"/v1/operations/{operation['id']}")).json())
        return found["ended_at"] is not None

    await until(over)
    return found


def test_what_an_operator_wants_comes_first_and_the_nearest_are_back_after_it(tmp_path: Path) -> None:
    async def scene() -> None:
        with emulator(tmp_path, blocks=4 * BLOCKS + 16) as engine:
            async with daemon(tmp_path, engine.url) as (sidecar, api):
                with Publisher("village", address=sidecar.feed_address) as publisher:
                    for agent in range(8):
                        publisher.bind(f"a{agent}", token_ids=prefix(agent))
                        publisher.activity(f"a{agent}", until=float(10 - agent))
                    publisher.step(0.0)
                    near = ("a7", "a6", "a5")

                    async def full() -> bool:
                        return all([await resident(api, f"village/{agent}") == BLOCKS for agent in near])

                    await until(full)
                    assert await resident(api, "village/a0") == 0
                    taken = await api.post("/v1/prefetch", json={"key": "village/a0"})
                    assert taken.status_code == 202
                    assert taken.headers["location"] == f"/v1/operations/{taken.json()['id']}"
                    done = await ended(api, taken.json())
                    assert (done["state"], done["engine"]) == ("done", "engine-0"), done
                    await until(full)
                    explained = (await api.get("/v1/agents/village/a0")).json()
                    loads = [one for one in explained["decisions"] if one["step"]["key"] == "village/a0"]
                    assert loads and all(
                        one["step"]["reason"].startswith("an operator asked for it: ") for one in loads
                    )
                    refused = await api.post("/v1/evict", json={"key": "village/a0"})
                    assert refused.status_code == 501
                    assert "stock engines evict what was used longest ago" in refused.json()["detail"]
                    listed = (await api.get("/v1/operations")).json()
                    assert listed["total"] == 1 and listed["operations"][0]["id"] == done["id"]

    asyncio.run(scene())


def test_an_order_waits_while_an_invocation_runs_and_can_be_cancelled(tmp_path: Path) -> None:
    async def scene() -> None:
        with emulator(tmp_path, blocks=64) as engine:
            async with daemon(tmp_path, engine.url) as (sidecar, api):
                with Publisher("village", address=sidecar.feed_address) as publisher:
                    publisher.bind("a", token_ids=prefix(1))
                    with publisher.invocation("b"):
                        assert await asyncio.to_thread(publisher.flush, 5)

                        async def taken() -> bool:
                            answer = await api.post("/v1/prefetch", json={"key": "village/a"})
                            return answer.status_code == 202

                        await until(taken)
                        cycles = sidecar.counts["cycles"]

                        async def cycled() -> bool:
                            return sidecar.counts["cycles"] > cycles + 3

                        await until(cycled)
                        (one,) = (await api.get("/v1/operations")).json()["operations"]
                        assert one["state"] == "waiting" and not sidecar.decisions
                        cancelled = await api.delete(f"/v1/operations/{one['id']}")
                        assert cancelled.json()["state"] == "cancelled"
                        assert not list(sidecar.operations.open())

    asyncio.run(scene())


def test_a_lora_comes_into_a_slot_by_an_operators_word(tmp_path: Path) -> None:
    async def scene() -> None:
        with emulator(tmp_path, blocks=64, max_loras=2, max_cpu_loras=2) as engine:
            engines = [{"url": engine.url, "name": "one", "lora_slots": 2, "lora_host_places": 2}]
            async with daemon(tmp_path, engines=engines) as (sidecar, api):
                with Publisher("village", address=sidecar.feed_address) as publisher:
                    for number, name in enumerate("abc"):
                        folder = make_lora(tmp_path / "loras" / name)
                        publisher.bind(name, lora=str(folder), lora_name=name)
                        publisher.activity(name, until=float(5 + number))
                    publisher.step(0.0)

                    async def settled() -> bool:
                        items = (await api.get("/v1/items", params={"kind": "lora"})).json()["items"]
                        slots = {item["item"] for item in items if "device" in item["tiers"]}
                        return slots == {"a", "b"} and all(item["registered"] for item in items)

                    await until(settled)
                    taken = await api.post("/v1/prefetch", json={"kind": "lora", "key": "c"})
                    done = await ended(api, taken.json())
                    assert (done["state"], done["engine"]) == ("done", "one"), done
                    page = await api.get("/v1/decisions", params={"key": "c", "action": "load"})
                    steps = [one["step"] for one in page.json()["decisions"]]
                    (load,) = [step for step in steps if step["key"] == "c"]
                    assert load["reason"].startswith("an operator asked for it: ")

    asyncio.run(scene())


def post(sidecar: Sidecar, path: str, **body: Any) -> tuple[int, str]:
    (answer,) = asyncio.run(ask(sidecar, lambda client: client.post(path, json=body)))
    return answer.status_code, answer.text


def bound(sidecar: Sidecar, **memory: Any) -> None:
    open_stream(sidecar)
    say(sidecar, {"type": "memory.bound", "agent": "a", **memory})


def know(sidecar: Sidecar, driver: Driver) -> None:
    """Let the engine's view know the prefix of `sim/a`."""
    memory = sidecar.population.agents["sim/a"].memory
    assert memory is not None
    driver.view.bound("sim/a", memory)


def capable(driver: Driver, **kinds: Capability) -> None:
    """Give the engine's view more capabilities than a stock engine has."""
    able = {kind: kinds.get(kind.value, INFO.capabilities[kind]) for kind in MemoryKind}
    driver.view.info = replace(INFO, capabilities=able)


def test_what_cannot_be_is_refused_with_the_reason(sidecar: Sidecar) -> None:
    bound(sidecar, token_ids=tokens(0, 2), lora="/loras/ell", lora_name="ell")
    assert post(sidecar, "/v1/prefetch", key="sim/nobody")[0] == 404
    assert post(sidecar, "/v1/prefetch", key="sim/a") == (409, '{"detail":"no engine is configured"}')
    driver = add_engine(sidecar)
    know(sidecar, driver)
    assert post(sidecar, "/v1/prefetch", key="sim/a", engine="two")[0] == 404
    assert post(sidecar, "/v1/prefetch", key="nobody's", kind="lora")[0] == 404
    assert post(sidecar, "/v1/prefetch", key="one", kind="model")[0] == 501
    assert post(sidecar, "/v1/evict", key="sim/a")[0] == 501
    assert post(sidecar, "/v1/evict", key="ell", kind="lora")[0] == 501
    assert post(sidecar, "/v1/evict", key="ell", kind="lora", within=0)[0] == 422
    capable(driver, prefix_kv=Capability.LOAD | Capability.EVICT)
    assert "holds nothing of it" in post(sidecar, "/v1/evict", key="sim/a")[1]
    driver.view.happened(stored("sim/a", 2))
    sidecar.pins["sim/a"] = time.time() + 60
    assert "sim/a is pinned" in post(sidecar, "/v1/evict", key="sim/a")[1]
    sidecar.pins.clear()
    say(sidecar, {"type": "invocation.started", "agent": "a"})
    assert "a request of sim/a is being served" in post(sidecar, "/v1/evict", key="sim/a")[1]
    sidecar.mode = RunMode.PAUSED
    assert "POST /v1/resume first" in post(sidecar, "/v1/prefetch", key="sim/a")[1]
    sidecar.mode = RunMode.ACTIVE
    driver.view.unreachable("gone")
    assert "does not answer: gone" in post(sidecar, "/v1/prefetch", key="sim/a")[1]
    assert not list(sidecar.operations.open())


def test_an_eviction_waits_for_its_users_and_nothing_loads_the_item_meanwhile(sidecar: Sidecar) -> None:
    bound(sidecar, token_ids=tokens(0, 2))
    driver = add_engine(sidecar)
    capable(driver, prefix_kv=Capability.LOAD | Capability.EVICT)
    know(sidecar, driver)
    driver.view.happened(stored("sim/a", 2))
    assert post(sidecar, "/v1/evict", key="sim/a")[0] == 202
    (one,) = sidecar.operations.open()
    load = Step(Action.LOAD, MemoryKind.PREFIX_KV, "sim/a", 0, 1, 1.0, "near")
    other = Step(Action.LOAD, MemoryKind.PREFIX_KV, "sim/b", 0, 1, 1.0, "near")

    def planned() -> list[tuple[Action, str]]:
        orders = Orders([one], sidecar.population, sidecar.pinned())
        steps = orders.applied(MemoryKind.PREFIX_KV, [load, other], driver)
        return [(step.action, step.key) for step in steps]

    assert planned() == [(Action.EVICT, "sim/a"), (Action.LOAD, "sim/b")]
    say(sidecar, {"type": "invocation.started", "agent": "a"})
    assert planned() == [(Action.LOAD, "sim/b")]
    assert one.detail == "a request of sim/a is being served"
    say(sidecar, {"type": "invocation.finished", "agent": "a"})
    sidecar.pins["sim/a"] = time.time() + 60
    assert planned() == [(Action.LOAD, "sim/b")] and "unpin it" in one.detail


class Plugged:
    """What the driver asks of an engine with our plug-in: it notes what is evicted."""

    def __init__(self) -> None:
        self.evicted: list[tuple[Any, Tier]] = []

    async def evict(self, item: Any, to: Tier, *, deadline: float) -> Outcome:
        self.evicted.append((item, to))
        return Outcome(0.0)

    async def inventory(self) -> Any:
        return Inventory({"ell": "/links/ell"}, LoraPlaces((), ()))


@pytest.mark.parametrize(
    ("kind", "key", "item"),
    [
        (MemoryKind.PREFIX_KV, "sim/a", PrefixItem("sim/a", "base")),
        (MemoryKind.LORA, "ell", LoraItem("ell", Path("/links/ell"))),
    ],
)
def test_an_eviction_goes_to_the_engine_once_it_is_quiet(
    sidecar: Sidecar, kind: MemoryKind, key: str, item: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Plugged()
    driver = add_engine(sidecar)
    monkeypatch.setattr(driver.acts, "_adapter", engine)
    driver.view.loras.registered["ell"] = "/links/ell"
    step = Step(Action.EVICT, kind, key, 0, 0, float("inf"), "an operator asked for it")
    blocks, loras = ([step], []) if kind is MemoryKind.PREFIX_KV else ([], [step])

    async def scene() -> None:
        driver.pursue(blocks, loras, 0)
        assert not driver.in_flight, "nothing is known of the engine's load"
        driver.view.measured(Pressure(0, 0, 0), 0, time.monotonic())
        driver.pursue(blocks, loras, 1)
        assert not driver.in_flight, "an invocation runs"
        driver.pursue(blocks, loras, 0)

        async def over() -> bool:
            return bool(sidecar.decisions)

        await until(over)

    asyncio.run(scene())
    assert engine.evicted == [(item, Tier.STORAGE)]
    (record,) = sidecar.decisions
    assert (record.result, record.step.reason) == ("done", "an operator asked for it")
    assert "ell" in driver.view.loras.registered


def test_operations_are_bounded_and_the_same_one_is_not_started_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(operations, "MOST_OPEN", 2)
    monkeypatch.setattr(operations, "KEPT", 3)
    known = Operations()

    def start(key: str) -> operations.Operation:
        return known.start(Action.LOAD, MemoryKind.PREFIX_KV, key, "one", 0.0, 9.0)

    first = start("a")
    assert start("a") is first
    start("b")
    with pytest.raises(TooManyOperations):
        start("c")
    for key in "cdef":
        first.end(State.DONE, "", 1.0)
        first = start(key)
    assert [one.key for one in known.all()] == ["f", "e", "b"]
    assert [one.key for one in known.open()] == ["b", "f"]


def test_operations_end_by_what_came_of_their_steps(sidecar: Sidecar) -> None:
    driver = add_engine(sidecar)
    known = sidecar.operations

    def start(action: Action, key: str, within: float = 60.0) -> operations.Operation:
        return known.start(action, MemoryKind.PREFIX_KV, key, "one", time.time(), within)

    def came(action: Action, key: str, result: str) -> None:
        step = Step(action, MemoryKind.PREFIX_KV, key, 0, 1, 1.0, "a test")
        recorded(known, Record(time.time(), "one", step, result, 0.1, 0))

    failing, going, late, there = (
        start(Action.LOAD, "sim/f"),
        start(Action.EVICT, "sim/g"),
        start(Action.LOAD, "sim/l", within=0.0),
        start(Action.LOAD, "sim/t"),
    )
    came(Action.LOAD, "sim/f", "cancelled: requests wait")
    assert (failing.state, failing.detail) == (State.WAITING, "cancelled: requests wait")
    came(Action.LOAD, "sim/f", "failed: no such model")
    assert (failing.state, failing.detail) == (State.FAILED, "no such model")
    came(Action.EVICT, "sim/g", "put off: in use")
    assert going.detail == "put off: in use"
    came(Action.EVICT, "sim/g", "done")
    driver.view.happened(stored("sim/t", 2))
    settle(known, sidecar.drivers, RunMode.ACTIVE)
    assert (going.state, late.state) == (State.DONE, State.EXPIRED)
    assert there.open, "no prefix is known of which to say that it is there"
    settle(known, sidecar.drivers, RunMode.PAUSED)
    assert there.detail == "the mode is paused, in which nothing is moved"
    driver.view.asleep = True
    settle(known, sidecar.drivers, RunMode.ACTIVE)
    assert there.detail == "the engine's model sleeps"
