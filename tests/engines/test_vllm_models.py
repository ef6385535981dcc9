"""Two models in one real vLLM, one after the other, fifty times: each says what it says in an engine of its own."""

from __future__ import annotations

import asyncio
import time
from statistics import median

import httpx
import pytest

from bench.rig import vllm
from bench.rig.vllm import VllmServer
from scalesim_adapters.base import ModelItem, Tier
from scalesim_adapters.vllm.adapter import VllmAdapter
from tests.adapters.contract import BLOCK
from tests.engines import vllm_subject
from tests.engines.small_village import tokens
from tests.engines.vllm_inside import LONG, ask, drive

pytestmark = pytest.mark.engine

ALTERNATIONS = 50
MODELS = ("tiny", "tiny-other")
PROMPTS = [[*tokens(f"models/{number}", 4 * BLOCK), 7] for number in range(3)]


async def say_all(client: httpx.AsyncClient) -> list[tuple[str, int]]:
    """Return what the engine says to each prompt, and how much of each was cached."""
    return list(await asyncio.gather(*(ask(client, prompt, 12) for prompt in PROMPTS)))


def say_alone(server: VllmServer) -> list[str]:
    """Return what an engine says that has only ever had one model."""

    async def main() -> list[str]:
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
            return [text for text, _ in await say_all(client)]

    return asyncio.run(main())


def test_fifty_alternations_say_what_fresh_engines_say(
    inside_vllm_server: VllmServer, exact_vllm_server: VllmServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    alone = {"tiny": say_alone(exact_vllm_server)}
    run = tmp_path_factory.mktemp("alone")
    flags = [*vllm.sidecar_flags(run, vllm_subject.POOL_BLOCKS * BLOCK), "--dtype", "float32"]
    with VllmServer(vllm.MODELS / "tiny-other", flags, run=run) as other:
        alone["tiny-other"] = say_alone(other)
    assert not set(alone["tiny"]) & set(alone["tiny-other"])

    async def body(adapter: VllmAdapter, client: httpx.AsyncClient) -> None:
        seconds = []
        for number in range(ALTERNATIONS):
            model = MODELS[(number + 1) % 2]
            started = time.monotonic()
            await adapter.load(ModelItem("base", vllm.MODELS / model), Tier.DEVICE, deadline=LONG)
            seconds.append(time.monotonic() - started)
            first, again = await say_all(client), await say_all(client)
            assert [cached for _, cached in first] == [0] * len(PROMPTS)
            assert [cached for _, cached in again] == [4 * BLOCK] * len(PROMPTS)
            assert [text for text, _ in first] == [text for text, _ in again] == alone[model]
        print(f"{ALTERNATIONS} exchanges of weights, median {median(seconds) * 1000:.0f} ms")

    drive(inside_vllm_server, body)


def test_woken_models_say_the_same_and_nothing_from_old_kv(inside_vllm_server: VllmServer) -> None:
    """From both levels of sleep, and with other weights on waking. A CPU build frees nothing by it."""

    async def body(adapter: VllmAdapter, client: httpx.AsyncClient) -> None:
        said = {}
        for model in MODELS:
            await adapter.load(ModelItem("base", vllm.MODELS / model), Tier.DEVICE, deadline=LONG)
            said[model] = [text for text, _ in await say_all(client)]
            for to in (Tier.HOST, Tier.STORAGE):
                await adapter.evict(ModelItem("base"), to, deadline=LONG)
                await adapter.load(ModelItem("base"), Tier.DEVICE, deadline=LONG)
                assert await say_all(client) == [(text, 0) for text in said[model]]
        await adapter.evict(ModelItem("base"), Tier.STORAGE, deadline=LONG)
        await adapter.load(ModelItem("base", vllm.MODELS / "tiny"), Tier.DEVICE, deadline=LONG)
        assert await say_all(client) == [(text, 0) for text in said["tiny"]]

    drive(inside_vllm_server, body)


def test_a_request_to_a_sleeping_model_is_answered_when_it_wakes(inside_vllm_server: VllmServer) -> None:
    async def body(adapter: VllmAdapter, client: httpx.AsyncClient) -> None:
        said = await ask(client, PROMPTS[0], cache_salt="awake")
        await adapter.evict(ModelItem("base"), Tier.HOST, deadline=LONG)
        waiting = asyncio.create_task(ask(client, PROMPTS[0], cache_salt="asleep"))

        async def heard() -> bool:
            return (await adapter.pressure()).waiting == 1

        async with asyncio.timeout(LONG):
            while not await heard():
                assert not waiting.done()
        await adapter.load(ModelItem("base"), Tier.DEVICE, deadline=LONG)
        assert await waiting == said

    drive(inside_vllm_server, body)
