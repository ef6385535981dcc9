"""The plug-in inside a real vLLM: where each LoRA and each agent's KV is, and moving one without the others."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.rig.daemon import DaemonProcess
from bench.rig.vllm import VllmServer
from scalesim_adapters.base import (
    Busy,
    Capability,
    CapacityExceeded,
    LoraPlaces,
    MemoryKind,
    NotFound,
    PrefixItem,
    Tier,
    Unsupported,
)
from scalesim_adapters.vllm.adapter import VllmAdapter
from scalesim_client import Publisher
from tests.adapters.contract import BLOCK
from tests.adapters.contract_tools import eventually
from tests.daemon.live import resident
from tests.engines.small_village import tokens
from tests.engines.vllm_inside import (
    HOST_PLACES,
    LONG,
    LONG_ANSWER,
    SLOTS,
    ask,
    drive,
    lora_items,
    requests,
    running,
)

pytestmark = pytest.mark.engine


async def places(adapter: VllmAdapter) -> LoraPlaces:
    told = (await adapter.inventory()).lora_places
    assert told is not None
    return told


def test_probe_tells_what_the_plug_in_adds(inside_vllm_server: VllmServer) -> None:
    async def body(adapter: VllmAdapter, _: httpx.AsyncClient) -> None:
        info = await adapter.probe()
        lora, prefix = info.capabilities[MemoryKind.LORA], info.capabilities[MemoryKind.PREFIX_KV]
        assert Capability.LIST | Capability.LOAD | Capability.EVICT | Capability.DEMOTE in lora
        assert Capability.LIST | Capability.LOAD | Capability.EVICT in prefix
        assert Capability.DEMOTE not in prefix
        assert info.capabilities[MemoryKind.MODEL] == Capability.LOAD | Capability.SLEEP
        assert (info.lora_slots, info.lora_host_places) == (SLOTS, HOST_PLACES)
        assert [lack.what for lack in info.missing] == ["memory freed by sleep"]

    drive(inside_vllm_server, body)


def test_a_lora_is_staged_brought_freed_and_dropped_alone(inside_vllm_server: VllmServer) -> None:
    async def body(adapter: VllmAdapter, client: httpx.AsyncClient) -> None:
        items = lora_items("moved", 3)
        a, b, c = (item.name for item in items)
        assert await places(adapter) == LoraPlaces((), ())
        for item in items[:2]:
            await adapter.load(item, Tier.DEVICE, deadline=LONG)
        await adapter.load(items[2], Tier.HOST, deadline=LONG)
        assert await places(adapter) == LoraPlaces((a, b), (a, b, c))
        await adapter.load(items[2], Tier.DEVICE, deadline=LONG)
        assert await places(adapter) == LoraPlaces((b, c), (a, b, c))
        for _ in range(2):
            await adapter.evict(items[1], Tier.HOST, deadline=LONG)
            assert await places(adapter) == LoraPlaces((c,), (a, b, c))
        for _ in range(2):
            await adapter.evict(items[2], Tier.STORAGE, deadline=LONG)
            assert await places(adapter) == LoraPlaces((), (a, b))
        assert set((await adapter.inventory()).loras) == {a, b, c}
        # What was dropped is read again when a request wants it.
        await ask(client, [5, 6, 7], model=c)
        assert await places(adapter) == LoraPlaces((c,), (a, b, c))
        await adapter.release(items[2], deadline=LONG)
        assert await places(adapter) == LoraPlaces((), (a, b))

    drive(inside_vllm_server, body)


def test_what_is_freed_and_brought_again_says_the_same(inside_vllm_server: VllmServer) -> None:
    async def body(adapter: VllmAdapter, client: httpx.AsyncClient) -> None:
        item, other = lora_items("same", 2)
        await adapter.load(item, Tier.DEVICE, deadline=LONG)
        said, _ = await ask(client, [11, 12, 13], model=item.name)
        assert said != (await ask(client, [11, 12, 13]))[0]
        for to in (Tier.HOST, Tier.STORAGE):
            await adapter.evict(item, to, deadline=LONG)
            await adapter.load(other, Tier.DEVICE, deadline=LONG)
            await adapter.load(item, Tier.DEVICE, deadline=LONG)
            assert (await ask(client, [11, 12, 13], model=item.name))[0] == said

    drive(inside_vllm_server, body)


def test_a_full_host_gives_up_what_is_in_no_slot_first(inside_vllm_server: VllmServer) -> None:
    async def body(adapter: VllmAdapter, _: httpx.AsyncClient) -> None:
        items = lora_items("full", HOST_PLACES + 1)
        names = [item.name for item in items]
        for item in items[:SLOTS]:
            await adapter.load(item, Tier.DEVICE, deadline=LONG)
        for item in items[SLOTS:]:
            await adapter.load(item, Tier.HOST, deadline=LONG)
        assert await places(adapter) == LoraPlaces(
            (names[0], names[1]), (names[0], names[1], names[3], names[4])
        )

    drive(inside_vllm_server, body)


def test_what_a_request_uses_stays(inside_vllm_server: VllmServer) -> None:
    async def body(adapter: VllmAdapter, client: httpx.AsyncClient) -> None:
        first, second, third = lora_items("used", 3)
        for item in (first, second):
            await adapter.load(item, Tier.DEVICE, deadline=LONG)
        # Long enough for all that is tried meanwhile, on a busy machine too.
        requested = [await running(client, [7, 8, 9], 2 * LONG_ANSWER, model=first.name)]
        for to in (Tier.HOST, Tier.STORAGE):
            with pytest.raises(Busy):
                await adapter.evict(first, to, deadline=LONG)
        await adapter.load(third, Tier.DEVICE, deadline=LONG)
        assert (await places(adapter)).held == {first.name}
        assert set((await places(adapter)).device) == {first.name, third.name}
        requested.append(asyncio.create_task(ask(client, [3, 4, 5], LONG_ANSWER, model=third.name)))

        async def both() -> bool:
            return await requests(client) == 2

        await eventually(both)
        with pytest.raises(CapacityExceeded):
            await adapter.load(second, Tier.DEVICE, deadline=LONG)
        await asyncio.gather(*requested)

    drive(inside_vllm_server, body)


async def cached_blocks(client: httpx.AsyncClient) -> dict[str, int]:
    answer = await client.get("/v1/scalesim/residency?prefixes=true")
    return dict(answer.raise_for_status().json()["prefixes"])


def test_one_agents_idle_blocks_are_evicted_and_no_others(inside_vllm_server: VllmServer) -> None:
    async def body(adapter: VllmAdapter, client: httpx.AsyncClient) -> None:
        agents = [
            PrefixItem(f"inside/{name}", "base", tuple(tokens(f"evict/{name}", 6 * BLOCK))) for name in "ab"
        ]
        for item in agents:
            await adapter.load(item, Tier.DEVICE, deadline=LONG)
        blocks = await cached_blocks(client)
        assert {item.agent: blocks[item.agent] for item in agents} == {"inside/a": 6, "inside/b": 6}
        with pytest.raises(Unsupported):
            await adapter.evict(agents[0], Tier.HOST, deadline=LONG)
        await adapter.evict(agents[0], Tier.STORAGE, deadline=LONG)
        blocks = await cached_blocks(client)
        assert "inside/a" not in blocks and blocks["inside/b"] == 6
        cached = [(await adapter.load(item, Tier.DEVICE, deadline=LONG)).cached for item in agents]
        assert cached == [0, 6 * BLOCK]

    drive(inside_vllm_server, body)


def test_operators_bring_and_evict_by_order(inside_vllm_server: VllmServer, tmp_path: Path) -> None:
    """Through the daemon, which is of one mind with the engine about what is where at once, on an idle engine, too."""
    (lora,) = lora_items("ordered", 1)
    prefix = tokens("ordered/p", 6 * BLOCK)

    async def body(adapter: VllmAdapter, client: httpx.AsyncClient) -> None:
        with (
            DaemonProcess(tmp_path, inside_vllm_server.url) as daemon,
            Publisher("ordered", address=daemon.feed) as publisher,
        ):
            publisher.bind("p", token_ids=prefix)
            publisher.bind("l", lora=str(lora.path), lora_name=lora.name)
            async with httpx.AsyncClient(base_url=daemon.api, timeout=LONG) as api:

                async def known() -> bool:
                    (engine,) = (await api.get("/v1/engines")).json()["engines"]
                    agents = (await api.get("/v1/agents")).json()["agents"]
                    named = lora.name in engine["loras"]["registered"]
                    return engine["known"] and named and any(agent["engines"] for agent in agents)

                await eventually(known)
                assert "ordered/p" not in await cached_blocks(client)
                assert await ordered(api, "prefetch", key="ordered/p") == "it is on the device"
                assert (await cached_blocks(client))["ordered/p"] == 6
                assert await ordered(api, "evict", key="ordered/p") == "it is gone"
                assert "ordered/p" not in await cached_blocks(client)

                async def forgotten() -> bool:
                    return await resident(api, "ordered/p") == 0

                await eventually(forgotten)
                assert await ordered(api, "prefetch", kind="lora", key=lora.name) == "it is on the device"
                assert lora.name in (await places(adapter)).device
                assert await ordered(api, "evict", kind="lora", key=lora.name) == "it is gone"
                assert lora.name not in (await places(adapter)).host
                # Its name is there still: who asks for it gets it.
                await ask(client, [5, 6, 7], model=lora.name)

    drive(inside_vllm_server, body)


async def ordered(api: httpx.AsyncClient, what: str, **order: str) -> str:
    """Return what came of an operator's order."""
    taken = await api.post(f"/v1/{what}", json=order)
    assert taken.status_code == 202, taken.text
    operation: dict[str, Any] = {}

    async def over() -> bool:
        operation.update((await api.get(taken.headers["location"])).json())
        return operation["ended_at"] is not None

    await eventually(over)
    assert operation["state"] == "done", operation
    return str(operation["detail"])


def test_without_a_name_there_is_nothing_to_evict(inside_vllm_server: VllmServer) -> None:
    async def body(adapter: VllmAdapter, client: httpx.AsyncClient) -> None:
        (item,) = lora_items("nameless", 1)
        await adapter.evict(item, Tier.STORAGE, deadline=LONG)
        with pytest.raises(NotFound):
            await adapter.load(
                PrefixItem("inside/n", item.name, tuple(range(BLOCK))), Tier.DEVICE, deadline=LONG
            )
        # Somebody unloads the name by the stock route: the weights stay, and take a place.
        await adapter.load(item, Tier.DEVICE, deadline=LONG)
        await client.post("/v1/unload_lora_adapter", json={"lora_name": item.name})
        told = await places(adapter)
        assert len(told.device) == len(told.host) == 1
        assert told.device[0].startswith("#")
        number = int(told.device[0][1:])
        await client.post("/collective_rpc", json={"method": "remove_lora", "args": [number]})

    drive(inside_vllm_server, body)
