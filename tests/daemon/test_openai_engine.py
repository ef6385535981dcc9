"""A daemon without Redis beside an engine that tells nothing of what it caches: the emulator, by OpenAI's routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer
from scalesim_adapters.emulator.faults import Status
from scalesim_client import Publisher
from tests.daemon.live import daemon, report, resident, until

BLOCK = 16
STORY = "the baker walks to the market and talks about the festival, before dawn and after lunch. " * 8


@asynccontextmanager
async def beside(
    folder: Path, engine: EmulatorServer, **settings: Any
) -> AsyncIterator[tuple[httpx.AsyncClient, Publisher]]:
    one = {"kind": "openai", "url": engine.url, "name": "one", "prompt_slots": 2, **settings}
    async with daemon(folder, engines=[one], redis={"enabled": False}) as (sidecar, api):
        with Publisher("sim", address=sidecar.feed_address) as publisher:
            publisher.step(0)
            yield api, publisher


def test_what_it_has_no_tokens_for_is_prefetched_as_text(tmp_path: Path) -> None:
    async def scene(engine: EmulatorServer) -> None:
        async with beside(tmp_path, engine, tagged=True) as (api, publisher):
            publisher.bind("a", text=STORY, model="base")
            publisher.activity("a", until=1.0)

            async def brought() -> bool:
                return await resident(api, "sim/a") == 1

            await until(brought)
            async with httpx.AsyncClient(base_url=engine.url) as direct:
                body = {"model": "base", "prompt": f"{STORY}Then", "max_tokens": 1}
                usage = (await direct.post("/v1/completions", json=body)).raise_for_status().json()["usage"]
            left = usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
            assert left <= 2 * BLOCK < usage["prompt_tokens"]
            assert (await report(api))["failed"] == 0

    with EmulatorServer(EmulatorConfig(block_size=BLOCK)) as engine:
        engine.inject(Status("/tokenize", 404, times=100))
        asyncio.run(scene(engine))


def test_an_engine_whose_requests_nobody_counts_is_used_as_if_others_were_there(tmp_path: Path) -> None:
    async def scene(engine: EmulatorServer) -> None:
        async with beside(tmp_path, engine) as (api, _):

            async def shared() -> bool:
                (state,) = (await api.get("/v1/engines")).json()["engines"]
                return bool(state["shared"])

            await until(shared)

    with EmulatorServer(EmulatorConfig(block_size=BLOCK)) as engine:
        asyncio.run(scene(engine))
