"""The model of a real SGLang asleep, with the plug-in as its guard: what would end the server alone does nothing here,
and no request is lost. A CPU build frees nothing by it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest

from bench.rig.sglang import SglangServer
from scalesim_adapters.base import Busy, ModelItem, Tier, Unsupported
from scalesim_adapters.sglang.adapter import SglangAdapter
from scalesim_adapters.sglang.models import RELEASE, RESUME
from tests.adapters.contract import BLOCK
from tests.adapters.contract_tools import LONG, VOCABULARY, eventually
from tests.engines.sglang_inside import state

pytestmark = pytest.mark.engine

MODEL = ModelItem("base")
TOKENS = 4 * BLOCK
ALL = ["cuda_graph", "kv_cache", "weights"]

Body = Callable[[SglangAdapter, httpx.AsyncClient], Awaitable[None]]


@pytest.fixture
def server(inside_sglang_server: SglangServer) -> Iterator[SglangServer]:
    """The same process answers after each test, awake."""
    pid = inside_sglang_server.pid
    yield inside_sglang_server
    assert inside_sglang_server.healthy()
    assert inside_sglang_server.pid == pid
    assert state(inside_sglang_server)["released"] == []


def drive(server: SglangServer, body: Body) -> None:
    """Run with an adapter and a client of the server."""

    async def main() -> None:
        adapter = SglangAdapter(server.url, name="sleeper")
        async with httpx.AsyncClient(base_url=server.url, timeout=LONG) as client:
            try:
                await adapter.probe()
                await body(adapter, client)
            finally:
                await client.post(RESUME, json={})
                await adapter.close()

    asyncio.run(main())


async def ask(client: httpx.AsyncClient, name: str, tokens: int = 8) -> tuple[str, int]:
    """Return what the server says to a prompt of this name, and how much of that was cached."""
    rng = random.Random(name)
    body = {
        "input_ids": [rng.randrange(10, VOCABULARY) for _ in range(TOKENS + 1)],
        "sampling_params": {"max_new_tokens": tokens, "temperature": 0, "ignore_eos": True},
    }
    answer = (await client.post("/generate", json=body)).raise_for_status().json()
    return answer["text"], answer["meta_info"]["cached_tokens"]


async def released(client: httpx.AsyncClient) -> Any:
    info = (await client.get("/server_info")).raise_for_status().json()
    return info["internal_states"][0]["scalesim"]["released"]


async def waits(adapter: SglangAdapter, running: asyncio.Task[Any]) -> None:
    """Return once one request waits."""

    async def one() -> bool:
        assert not running.done()
        return (await adapter.pressure()).waiting == 1

    await eventually(one)


def test_a_model_doesnt_sleep_while_requests_run_and_the_server_lives(server: SglangServer) -> None:
    async def body(adapter: SglangAdapter, client: httpx.AsyncClient) -> None:
        alone, _ = await ask(client, "running", 400)
        running = asyncio.create_task(ask(client, "running", 400))

        async def runs() -> bool:
            return (await adapter.pressure()).running == 1

        await eventually(runs)
        with pytest.raises(Busy):
            await adapter.evict(MODEL, Tier.HOST, deadline=LONG)
        assert (await client.post(RELEASE, json={})).status_code == 200
        assert (await adapter.inventory()).asleep is False
        assert not running.done()
        assert await running == (alone, TOKENS)

    drive(server, body)


def test_what_was_said_before_sleep_is_said_after_it_and_nothing_is_cached(server: SglangServer) -> None:
    async def body(adapter: SglangAdapter, client: httpx.AsyncClient) -> None:
        said, _ = await ask(client, "woken")
        assert await ask(client, "woken") == (said, TOKENS)
        for _ in range(2):
            await adapter.evict(MODEL, Tier.HOST, deadline=LONG)
            assert (await adapter.inventory()).asleep is True
            assert await released(client) == ALL
        for _ in range(2):
            await adapter.load(MODEL, Tier.DEVICE, deadline=LONG)
            assert (await adapter.inventory()).asleep is False
        assert await ask(client, "woken") == (said, 0)

    drive(server, body)


def test_what_would_end_the_server_does_nothing(server: SglangServer) -> None:
    """The stock routes, as anybody may call them: resumed twice, released twice and in parts, and by odd names."""

    async def body(adapter: SglangAdapter, client: httpx.AsyncClient) -> None:
        for route, tags, left in (
            (RESUME, None, []),
            (RESUME, ["weights"], []),
            (RELEASE, ["nonsense"], []),
            (RELEASE, ["kv_cache"], ["kv_cache"]),
            (RELEASE, ["kv_cache", "weights"], ["kv_cache", "weights"]),
            (RESUME, ["weights", "cuda_graph"], ["kv_cache"]),
            (RESUME, ["weights"], ["kv_cache"]),
            (RELEASE, None, ALL),
            (RELEASE, None, ALL),
            (RESUME, None, []),
            (RESUME, None, []),
        ):
            answer = await client.post(route, json={} if tags is None else {"tags": tags})
            assert answer.status_code == 200
            assert await released(client) == left, (route, tags)
        assert (await ask(client, "alive"))[1] == 0

    drive(server, body)


def test_a_request_to_a_sleeping_model_is_answered_when_it_wakes(server: SglangServer) -> None:
    """Nobody else can let it go on earlier, either."""

    async def body(adapter: SglangAdapter, client: httpx.AsyncClient) -> None:
        said, _ = await ask(client, "waiting")
        await adapter.evict(MODEL, Tier.HOST, deadline=LONG)
        waiting = asyncio.create_task(ask(client, "waiting"))
        await waits(adapter, waiting)
        assert (await client.post("/continue_generation", json={})).status_code == 200
        await client.post(RESUME, json={"tags": ["weights"]})
        assert await released(client) == ["cuda_graph", "kv_cache"]
        await waits(adapter, waiting)
        await adapter.load(MODEL, Tier.DEVICE, deadline=LONG)
        assert await waiting == (said, 0)

    drive(server, body)


def test_who_paused_the_server_finds_it_paused_after_sleep(server: SglangServer) -> None:
    """A request that was interrupted by the pause goes on after both."""

    async def body(adapter: SglangAdapter, client: httpx.AsyncClient) -> None:
        said, _ = await ask(client, "paused", 400)
        paused = asyncio.create_task(ask(client, "paused", 400))

        async def runs() -> bool:
            return (await adapter.pressure()).running == 1

        await eventually(runs)
        await client.post("/pause_generation", json={"mode": "retract"})
        try:
            await adapter.evict(MODEL, Tier.HOST, deadline=LONG)
            await adapter.load(MODEL, Tier.DEVICE, deadline=LONG)
            await waits(adapter, paused)
        finally:
            await client.post("/continue_generation", json={})
        assert (await paused)[0] == said

    drive(server, body)


def test_it_sleeps_in_host_memory_with_the_weights_it_has(server: SglangServer) -> None:
    async def body(adapter: SglangAdapter, client: httpx.AsyncClient) -> None:
        for tier in (Tier.STORAGE, Tier.REMOTE, Tier.DEVICE):
            with pytest.raises(Unsupported):
                await adapter.evict(MODEL, tier, deadline=LONG)
        with pytest.raises(Unsupported):
            await adapter.load(ModelItem("base", server.log.parent), Tier.DEVICE, deadline=LONG)
        assert await released(client) == []

    drive(server, body)
