"""The vLLM adapter where our plug-in and developer mode are there: what is asked, in which order, and what never is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from scalesim_adapters.base import (
    Busy,
    Capability,
    CapacityExceeded,
    EngineError,
    EngineInfo,
    Inventory,
    Item,
    LoraItem,
    LoraPlaces,
    MemoryKind,
    ModelItem,
    PrefixItem,
    ProtocolMismatch,
    Rejected,
    Tier,
    Unsupported,
)
from scalesim_adapters.vllm import routes
from scalesim_adapters.vllm.adapter import VllmAdapter
from tests.adapters.vllm_answers import COMPLETIONS, LOAD, METRICS, UNLOAD, Server, drive, models_with

RESIDENCY = {
    "model": "/models/one",
    "asleep": False,
    "sleep_frees": True,
    "requests": 0,
    "loras": {
        "slots": 2,
        "host_places": 4,
        "device": ["a", "#3"],
        "host": ["b", "a", "#3"],
        "pinned": [],
        "in_use": ["a"],
    },
    "ranks": True,
    "host_tier": False,
}
ITEM = PrefixItem("town/ann", "base", tuple(range(64)))
BUSY = httpx.Response(409, json={"error": {"message": "a request uses the LoRA"}})
DONE = httpx.Response(200, json={})
ASLEEP = httpx.Response(200, json={"is_sleeping": True})
AWAKE = httpx.Response(200, json={"is_sleeping": False})

RANKED = Capability.LIST | Capability.EVICT | Capability.HINT


def told(**changes: Any) -> httpx.Response:
    """The plug-in's answer, changed in places; of LoRAs where `loras` is a part."""
    loras = changes.pop("loras", {})
    merged = None if loras is None else {**RESIDENCY["loras"], **loras}
    return httpx.Response(200, json={**RESIDENCY, "loras": merged, **changes})


def inside(residency: httpx.Response | None = None, **answers: Any) -> Server:
    done = dict.fromkeys((routes.LOAD, routes.FREE, routes.EVICT, routes.SWAP, "/sleep", "/wake_up"), DONE)
    return Server(**{**done, routes.RESIDENCY: residency or told(), **answers})


def after_probe(server: Server, call: Callable[[VllmAdapter], Awaitable[Any]]) -> Any:
    async def body(adapter: VllmAdapter) -> Any:
        await adapter.probe()
        del server.asked[:]
        return await call(adapter)

    return drive(server, body)


def evict(item: Item, to: Tier) -> Callable[[VllmAdapter], Awaitable[Any]]:
    return lambda adapter: adapter.evict(item, to, deadline=5)


def load(item: Item, tier: Tier = Tier.DEVICE) -> Callable[[VllmAdapter], Awaitable[Any]]:
    return lambda adapter: adapter.load(item, tier, deadline=5)


def posts(server: Server) -> list[str]:
    return [path for method, path, _ in server.asked if method == "POST"]


@pytest.fixture
def lora(tmp_path: Path) -> LoraItem:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").touch()
    return LoraItem("a", tmp_path)


@pytest.mark.parametrize(
    ("residency", "dev", "kind", "gains"),
    [
        (told(), False, MemoryKind.LORA, Capability.EVICT | Capability.DEMOTE),
        (told(loras=None), False, MemoryKind.LORA, Capability.NONE),
        (told(), False, MemoryKind.PREFIX_KV, RANKED),
        (
            told(host_tier=True),
            False,
            MemoryKind.PREFIX_KV,
            RANKED | Capability.DEMOTE,
        ),
        (told(ranks=False), False, MemoryKind.PREFIX_KV, Capability.NONE),
        (told(), False, MemoryKind.MODEL, Capability.LOAD),
        (told(model=None), False, MemoryKind.MODEL, Capability.NONE),
        (told(host_tier=True), False, MemoryKind.MODEL, Capability.NONE),
        (told(model=None), True, MemoryKind.MODEL, Capability.LOAD | Capability.SLEEP),
    ],
)
def test_a_probe_finds_what_the_plug_in_and_developer_mode_add(
    residency: httpx.Response, dev: bool, kind: MemoryKind, gains: Capability
) -> None:
    def found(server: Server) -> EngineInfo:
        info = drive(server, lambda adapter: adapter.probe())
        assert isinstance(info, EngineInfo)
        return info

    stock = found(Server())
    info = found(inside(residency, **({"/is_sleeping": AWAKE} if dev else {})))
    assert info.capabilities[kind] == stock.capabilities[kind] | gains
    assert (info.lora_slots, stock.lora_host_places) == (2, None)
    assert info.lora_host_places == (None if residency.json()["loras"] is None else 4)


def test_the_inventory_tells_places_blocks_and_sleep() -> None:
    said = after_probe(inside(told(asleep=True)), lambda adapter: adapter.inventory())
    assert isinstance(said, Inventory)
    assert said.lora_places == LoraPlaces(("a", "#3"), ("b", "a", "#3"), frozenset({"a"}))
    assert said.asleep is True
    stock = after_probe(Server(), lambda adapter: adapter.inventory())
    assert (stock.lora_places, stock.asleep) == (None, None)


def test_an_answer_of_another_form_is_a_mismatch() -> None:
    with pytest.raises(ProtocolMismatch, match="residency"):
        drive(inside(httpx.Response(200, json={"model": 1})), lambda adapter: adapter.probe())


def test_loras_move_without_requests(lora: LoraItem) -> None:
    server = inside()
    for tier in (Tier.DEVICE, Tier.HOST):
        after_probe(server, load(lora, tier))
        sent = {"lora_name": "a", "lora_path": str(lora.path), "tier": tier.value}
        assert server.asked == [("POST", routes.LOAD, sent)]
    for to in (Tier.HOST, Tier.STORAGE):
        after_probe(server, evict(lora, to))
        assert server.asked == [("POST", routes.FREE, {"lora_name": "a", "to": to.value})]


def test_a_name_is_released_whether_or_not_its_weights_can_go(lora: LoraItem) -> None:
    for free in (DONE, BUSY, httpx.Response(404, json={"error": {"message": "no LoRA is named a"}})):
        server = inside(**{routes.FREE: free})
        after_probe(server, lambda adapter: adapter.release(lora, deadline=5))
        assert posts(server) == [routes.FREE, UNLOAD]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (BUSY, Busy),
        (httpx.Response(503, json={"error": {"message": "all 2 slots are in use"}}), CapacityExceeded),
        (httpx.Response(400, json={"error": {"message": "another path"}}), Rejected),
        (httpx.Response(501, json={"error": {"message": "no extension"}}), Unsupported),
        (httpx.Response(500, json={"error": {"message": "header too small"}}), Rejected),
    ],
)
def test_refusals_tell_whether_to_try_again(
    answer: httpx.Response, error: type[EngineError], lora: LoraItem
) -> None:
    with pytest.raises(EngineError) as raised:
        after_probe(inside(**{routes.LOAD: answer}), load(lora))
    assert type(raised.value) is error
    assert raised.value.retryable == (error in (Busy, CapacityExceeded))


def test_no_request_for_a_lora_while_all_slots_are_pinned(lora: LoraItem) -> None:
    prefix = PrefixItem("town/ann", "a", ITEM.token_ids)
    for device, goes in ((["b", "c"], False), (["a", "c"], True)):
        server = inside(told(loras={"device": device, "pinned": device}), **{"/v1/models": models_with(lora)})
        if goes:
            after_probe(server, load(prefix))
        else:
            with pytest.raises(CapacityExceeded):
                after_probe(server, load(prefix))
        assert bool(server.posted(COMPLETIONS)) == goes


def test_only_an_agents_blocks_are_evicted_and_demoted_only_to_a_tier_that_is_there() -> None:
    server = inside()
    after_probe(server, evict(ITEM, Tier.STORAGE))
    assert server.asked == [("POST", routes.EVICT, {"agent": "town/ann"})]
    with pytest.raises(Unsupported):
        after_probe(server, evict(ITEM, Tier.HOST))
    after_probe(inside(told(host_tier=True)), evict(ITEM, Tier.HOST))


def test_stock_engines_are_asked_for_none_of_it(lora: LoraItem) -> None:
    server = Server()
    model = ModelItem("base", Path("/models/two"))
    for call in (
        *(evict(item, to) for item in (ITEM, lora, model) for to in (Tier.HOST, Tier.STORAGE)),
        *(load(item, Tier.HOST) for item in (ITEM, lora, model)),
        load(model),
    ):
        with pytest.raises(Unsupported):
            after_probe(server, call)
        assert posts(server) == []


def test_a_model_sleeps_only_while_nothing_runs_or_waits() -> None:
    idle = {"/is_sleeping": AWAKE}
    for to, level in ((Tier.HOST, 1), (Tier.STORAGE, 2)):
        server = inside(**idle)
        after_probe(server, evict(ModelItem("base"), to))
        assert posts(server) == ["/sleep"]
        assert {"level": str(level), "mode": "wait"} in server.queries
    server = inside(told(requests=1), **idle)
    with pytest.raises(Busy):
        after_probe(server, evict(ModelItem("base"), Tier.HOST))
    assert posts(server) == []


def test_without_the_plug_in_the_servers_counters_tell_whether_a_model_may_sleep() -> None:
    stock = {"/is_sleeping": AWAKE, "/sleep": DONE}
    server = Server(**stock)
    after_probe(server, evict(ModelItem("base"), Tier.HOST))
    assert posts(server) == ["/sleep"]
    for count in ("running", "waiting"):
        busy = METRICS.replace(
            f'vllm:num_requests_{count}{{engine="0",model_name="base"}} 0.0',
            f'vllm:num_requests_{count}{{engine="0",model_name="base"}} 1.0',
        )
        assert busy != METRICS
        server = Server(**stock, **{"/metrics": httpx.Response(200, text=busy)})
        with pytest.raises(Busy):
            after_probe(server, evict(ModelItem("base"), Tier.HOST))
        assert posts(server) == []


def test_sleeping_twice_and_waking_twice_ask_nothing_twice() -> None:
    server = inside(**{"/is_sleeping": ASLEEP})
    after_probe(server, evict(ModelItem("base"), Tier.HOST))
    assert posts(server) == []
    server = inside(**{"/is_sleeping": AWAKE})
    after_probe(server, load(ModelItem("base")))
    assert posts(server) == []


def test_weights_that_were_discarded_are_read_before_anything_is_computed() -> None:
    text = METRICS + 'vllm:engine_sleep_state{engine="0",model_name="base",sleep_state="discard_all"} %s\n'
    for discarded, expected in (
        ("0.0", ["/wake_up"]),
        ("1.0", ["/wake_up", "/collective_rpc", "/wake_up"]),
    ):
        server = inside(
            **{
                "/is_sleeping": ASLEEP,
                "/collective_rpc": DONE,
                "/metrics": httpx.Response(200, text=text % discarded),
            }
        )
        after_probe(server, load(ModelItem("base")))
        assert posts(server) == expected
    assert server.posted("/collective_rpc") == [{"method": "reload_weights"}]
    assert [query.get("tags") for query in server.queries if query] == ["weights", "kv_cache"]


def test_the_plug_in_tells_who_waits_while_the_servers_counters_stand_still() -> None:
    for asleep, waiting in ((True, 2), (False, 0)):
        server = inside(told(asleep=asleep, requests=2))
        pressure = after_probe(server, lambda adapter: adapter.pressure())
        assert (pressure.running, pressure.waiting) == (0, waiting)


def test_nothing_is_loaded_into_a_model_that_sleeps(lora: LoraItem) -> None:
    server = inside(**{"/is_sleeping": ASLEEP})
    for item in (ITEM, lora):
        with pytest.raises(Busy):
            after_probe(server, load(item))
        assert posts(server) == []


def test_weights_change_by_the_plug_in_alone() -> None:
    server = inside()
    after_probe(server, load(ModelItem("base", Path("/models/two"))))
    assert server.posted(routes.SWAP) == [{"path": "/models/two"}]
    with pytest.raises(Unsupported):
        after_probe(Server(**{"/is_sleeping": AWAKE}), load(ModelItem("base", Path("/models/two"))))


def test_nothing_ever_says_in_place_or_pin(lora: LoraItem) -> None:
    for server in (inside(), Server(), Server(**{"/v1/models": models_with(lora)})):
        after_probe(server, load(lora))
        for _, path, body in server.asked:
            assert "pin" not in path
            assert not {"load_inplace", "method"} & set(body or {})
        assert server.posted(LOAD) in ([], [{"lora_name": "a", "lora_path": str(lora.path)}])
