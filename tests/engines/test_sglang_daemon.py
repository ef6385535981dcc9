"""The daemon as a process beside a real SGLang: near agents are brought in, which the engine alone has evicted."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from bench.rig import sglang
from bench.rig.daemon import DaemonProcess
from bench.rig.sglang import SglangServer
from scalesim_client import Publisher
from scalesim_daemon.doctor import examine
from tests.adapters.contract import BLOCK
from tests.daemon.live import report, resident, until
from tests.engines.small_village import PREFIX, complete, tokens

pytestmark = pytest.mark.engine

PREFIX_BLOCKS = PREFIX // BLOCK
AGENTS = [f"a{number}" for number in range(12)]
NEAR, FAR = AGENTS[:5], AGENTS[-2:]


async def call(engine: httpx.AsyncClient, agent: str) -> int:
    """Send an agent's request; return how many tokens of its prompt were cached."""
    return await complete(engine, agent, [*tokens(agent), 11, 12])


def test_the_engine_alone_has_evicted_those_who_come_next(sglang_server: SglangServer) -> None:
    async def scene() -> None:
        async with httpx.AsyncClient(base_url=sglang_server.url, timeout=30) as engine:
            for agent in AGENTS:
                assert await call(engine, f"alone/{agent}") == 0
            assert [await call(engine, f"alone/{agent}") for agent in NEAR] == [0] * len(NEAR)

    asyncio.run(scene())


def test_the_doctor_knows_it_and_misses_nothing(sglang_server: SglangServer) -> None:
    found = asyncio.run(examine(sglang_server.url))
    assert found.info is not None
    assert (found.info.engine, found.info.version, found.info.missing) == ("sglang", sglang.VERSION, ())


def test_near_agents_are_brought_in_and_far_ones_make_room(
    sglang_server: SglangServer, tmp_path: Path
) -> None:
    async def scene(publisher: Publisher, daemon: DaemonProcess) -> None:
        async with (
            httpx.AsyncClient(base_url=daemon.api, timeout=30) as api,
            httpx.AsyncClient(base_url=sglang_server.url, timeout=30) as engine,
        ):
            for agent in AGENTS:
                publisher.bind(agent, token_ids=tokens(f"near/{agent}"), model="base")
                with publisher.invocation(agent):
                    assert await asyncio.to_thread(publisher.flush, 5)
                    assert await call(engine, f"near/{agent}") == 0

            async def far_are_there() -> bool:
                held = [await resident(api, f"near/{agent}") for agent in (NEAR[0], *FAR)]
                return held == [0, PREFIX_BLOCKS, PREFIX_BLOCKS]

            await until(far_are_there)
            publisher.step(0)
            for distance, agent in enumerate(AGENTS):
                publisher.activity(agent, for_=10.0 + distance)

            async def moved() -> bool:
                held = [await resident(api, f"near/{agent}") for agent in NEAR]
                left = [await resident(api, f"near/{agent}") for agent in FAR]
                return set(held) == {PREFIX_BLOCKS} and max(left) < PREFIX_BLOCKS

            await until(moved)
            with ExitStack() as calls:
                for agent in NEAR:
                    calls.enter_context(publisher.invocation(agent))
                assert await asyncio.to_thread(publisher.flush, 5)

                async def heard() -> bool:
                    return (await api.get(f"/v1/agents/near/{NEAR[-1]}")).json()["in_flight"] == 1

                await until(heard)
                assert [await call(engine, f"near/{agent}") for agent in NEAR] == [PREFIX] * len(NEAR)

            async def scored() -> bool:
                return (await report(api))["prefetches_used"] == len(NEAR)

            await until(scored)

    with (
        DaemonProcess(tmp_path, sglang_server.url, kind="sglang") as daemon,
        Publisher("near", address=daemon.feed) as publisher,
    ):
        asyncio.run(scene(publisher, daemon))
