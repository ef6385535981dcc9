"""The gateway in front of a real vLLM: its bytes, and what the daemon learns from requests that name only a `user`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from bench.rig.daemon import DaemonProcess
from bench.rig.process import free_port
from bench.rig.vllm import VllmServer
from scalesim_client import Publisher
from tests.adapters.contract import BLOCK
from tests.daemon.live import report, until
from tests.engines.small_village import PREFIX, tokens

pytestmark = pytest.mark.engine

PREFIX_BLOCKS = PREFIX // BLOCK
PERSONA = "You are Rosa, and you keep the inn at the end of the long road. " * 8
# What differs between two answers of one engine.
UNIQUE = re.compile(rb'"(id|created)":("[^"]*"|\d+)')


@pytest.fixture
def daemon(vllm_server: VllmServer, tmp_path: Path) -> Iterator[DaemonProcess]:
    with DaemonProcess(tmp_path, vllm_server.url, gateway_port=free_port()) as running:
        yield running


def client(base_url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=base_url, timeout=60)


async def agent(api: httpx.AsyncClient, key: str) -> dict[str, Any]:
    return dict((await api.get(f"/v1/agents/{key}")).json())


def test_answers_through_the_gateway_are_the_engines_own(
    vllm_server: VllmServer, daemon: DaemonProcess
) -> None:
    chat = {
        "model": "base",
        "messages": [{"role": "system", "content": PERSONA}, {"role": "user", "content": "What now?"}],
        "max_tokens": 24,
        "temperature": 0,
        "ignore_eos": True,
        "user": "rosa",
    }
    calls: list[tuple[str, str, Any]] = [
        ("POST", "/v1/chat/completions", {**chat, "stream": True, "stream_options": {"include_usage": True}}),
        ("POST", "/v1/chat/completions", chat),
        ("POST", "/v1/chat/completions", {**chat, "model": "nobody's"}),
        ("POST", "/v1/completions", {**chat, "prompt": -1}),
        ("GET", "/v1/models", None),
    ]

    async def scene() -> None:
        async with (
            client(vllm_server.url) as direct,
            client(daemon.gateway) as gateway,
            client(daemon.api) as api,
        ):
            for method, path, body in calls:
                # The first answer finds less in the cache than the others.
                _, one, other = [
                    await door.request(method, path, json=body) for door in (direct, direct, gateway)
                ]
                assert one.status_code == other.status_code
                assert UNIQUE.sub(b"", one.content) == UNIQUE.sub(b"", other.content), path
                names = [sorted(answer.headers.keys()) for answer in (one, other)]
                assert names[0] == names[1]
            texts = [await streamed(url) for url in (vllm_server.url, daemon.gateway)]
            assert texts[0] == texts[1] and texts[0]

            async def told() -> bool:
                seen = await agent(api, "default/rosa")
                return bool(seen["in_flight"] == 0 and seen["invocations"] == 5)

            await until(told)

    asyncio.run(scene())


async def streamed(url: str) -> list[str | None]:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as openai:
        stream = await openai.completions.create(
            model="base", prompt=PERSONA, max_tokens=16, temperature=0, stream=True, user="rosa"
        )
        return [part.choices[0].text async for part in stream]


def test_a_client_that_goes_away_frees_the_engine(vllm_server: VllmServer, daemon: DaemonProcess) -> None:
    async def scene() -> None:
        async with client(vllm_server.url) as direct, client(daemon.gateway) as gateway:

            async def load() -> int:
                return int((await direct.get("/load")).json()["server_load"])

            body = {"model": "base", "prompt": [7, 8], "max_tokens": 4000, "ignore_eos": True, "stream": True}
            # What vLLM counts needn't begin at 0: it once told of one request less than it had.
            before = await load()
            async with gateway.stream("POST", "/v1/completions", json=body) as answer:
                # Whoever lets go of the parts hangs up.
                parts = answer.aiter_raw()
                await anext(parts)
                assert (answer.status_code, await load()) == (200, before + 1)

            async def idle() -> bool:
                return await load() == before

            await until(idle)

    asyncio.run(scene())


def test_a_prefix_is_learned_from_calls_with_a_user_and_brought_back(
    vllm_server: VllmServer, daemon: DaemonProcess
) -> None:
    prefix = tokens("gateway")

    async def scene() -> None:
        async with client(daemon.gateway) as gateway, client(daemon.api) as api:

            async def call(user: str, prompt: list[int]) -> int:
                body = {"model": "base", "prompt": prompt, "max_tokens": 2, "ignore_eos": True, "user": user}
                answer = (await gateway.post("/v1/completions", json=body)).raise_for_status().json()
                return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])

            async def holds(blocks: int) -> bool:
                places = (await agent(api, "default/ben")).get("engines", {}).values()
                return list(places) == [{"blocks": PREFIX_BLOCKS, "resident_blocks": blocks}]

            assert await call("ben", [*prefix, *tokens("gateway, first turn", 2 * BLOCK)]) == 0
            assert await call("ben", [*prefix, *tokens("gateway, second turn", 2 * BLOCK)]) == PREFIX
            await until(lambda: holds(PREFIX_BLOCKS))
            for other in range(8):
                assert await call(f"other{other}", tokens(f"gateway, pressure {other}")) == 0
            await until(lambda: holds(0))
            with Publisher("default", address=daemon.feed) as publisher:
                publisher.step(0)
                publisher.activity("ben", until=5.0)
                await until(lambda: holds(PREFIX_BLOCKS))
                assert await call("ben", [*prefix, *tokens("gateway, third turn", 2 * BLOCK)]) == PREFIX
            assert (await report(api))["prefetches"] == 1

            async def told() -> bool:
                return bool((await agent(api, "default/ben"))["invocations"] == 3)

            await until(told)

    asyncio.run(scene())
