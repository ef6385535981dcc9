"""The daemon as a process beside a real vLLM: what it brings in, and what becomes of it when one of them dies."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.rig.daemon import DaemonProcess
from bench.rig.vllm import VllmServer
from scalesim_client import Publisher
from tests.adapters.contract import BLOCK
from tests.daemon.live import report, until
from tests.engines.near_scene import near_come_and_far_go
from tests.engines.small_village import PREFIX, SmallVillage, complete, tokens
from tests.engines.witness import daemon_sees_what_the_engine_holds

pytestmark = pytest.mark.engine

PREFIX_BLOCKS = PREFIX // BLOCK


@pytest.fixture
def engine(vllm_server: VllmServer) -> VllmServer:
    return vllm_server


@pytest.fixture
def daemon(engine: VllmServer, tmp_path: Path) -> Iterator[DaemonProcess]:
    with DaemonProcess(tmp_path, engine.url) as running:
        yield running


async def engine_state(api: httpx.AsyncClient) -> dict[str, Any]:
    (state,) = (await api.get("/v1/engines")).raise_for_status().json()["engines"]
    return dict(state)


def client(base_url: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=base_url, timeout=30)


def test_near_agents_are_brought_in_and_far_ones_make_room(engine: VllmServer, daemon: DaemonProcess) -> None:
    # Of a prefix the tail goes first.
    asyncio.run(near_come_and_far_go(daemon, engine.url, far_keep=0.5))


def test_a_prefix_nobody_declared_is_learned_evicted_and_brought_back(
    engine: VllmServer, daemon: DaemonProcess
) -> None:
    prefix = tokens("learned")

    async def scene(publisher: Publisher) -> None:
        async with client(daemon.api) as api, client(engine.url) as direct:

            async def call(agent: str, prompt: list[int]) -> int:
                with publisher.invocation(agent):
                    assert await asyncio.to_thread(publisher.flush, 5)
                    return await complete(direct, f"learned/{agent}", prompt)

            async def holds(blocks: int) -> bool:
                (place,) = (await api.get("/v1/agents/learned/b")).json()["engines"].values()
                return place == {"blocks": PREFIX_BLOCKS, "resident_blocks": blocks}

            publisher.step(0)
            assert await call("b", [*prefix, *tokens("first turn", 2 * BLOCK)]) == 0
            assert await call("b", [*prefix, *tokens("second turn", 2 * BLOCK)]) == PREFIX
            await until(lambda: holds(PREFIX_BLOCKS))
            for other in range(8):
                assert await call(f"other{other}", tokens(f"pressure {other}")) == 0
            await until(lambda: holds(0))
            publisher.activity("b", until=5.0)
            await until(lambda: holds(PREFIX_BLOCKS))
            publisher.step(5)
            assert await call("b", [*prefix, *tokens("third turn", 2 * BLOCK)]) == PREFIX
            assert (await report(api))["prefetches"] == 1

    with Publisher("learned", address=daemon.feed) as publisher:
        asyncio.run(scene(publisher))


def test_an_engine_killed_under_load_is_found_again_and_filled_anew(
    engine: VllmServer, daemon: DaemonProcess
) -> None:
    async def scene(publisher: Publisher) -> None:
        village = SmallVillage(engine.url, publisher, "reborn")
        async with client(daemon.api) as api:
            async with village.living():
                await village.lives(steps=12)
                before, used = await engine_state(api), (await report(api))["prefetches_used"]
                assert used > 0
                await asyncio.to_thread(engine.kill)

                async def missed() -> bool:
                    return not (await engine_state(api))["reachable"] and village.failures > 0

                await until(missed)
                await asyncio.to_thread(engine.start)

                async def found() -> bool:
                    state = await engine_state(api)
                    return state["reachable"] and state["incarnation"] != before["incarnation"]

                await until(found)
                answered = len(village.answers)
                await village.lives(steps=16)

                async def used_again() -> bool:
                    return (await report(api))["prefetches_used"] > used

                await until(used_again)
            assert any(answer.cached >= PREFIX for answer in village.answers[answered:])
            assert any(answer.failures for answer in village.answers)
            await daemon_sees_what_the_engine_holds(engine.url, api, "reborn", village.prefixes)
            after = await engine_state(api)
            assert (after["restarts"], after["known"]) == (1, True)
        assert daemon.running

    with Publisher("reborn", address=daemon.feed) as publisher:
        asyncio.run(scene(publisher))


def test_a_daemon_killed_in_mid_run_harms_nobody_and_takes_up_where_it_was(
    engine: VllmServer, daemon: DaemonProcess
) -> None:
    async def scene(publisher: Publisher) -> None:
        village = SmallVillage(engine.url, publisher, "orphan")
        async with client(daemon.api) as api:
            async with village.living():
                await village.lives(steps=12)
                assert (await report(api))["prefetches_used"] > 0
                await asyncio.to_thread(daemon.kill)
                await village.lives(steps=8)
                await asyncio.to_thread(daemon.start)

                async def knows_all() -> bool:
                    # What was bound is said again by the publisher's snapshot alone.
                    agents = (await api.get("/v1/agents")).json()["agents"]
                    lengths = {blocks["blocks"] for agent in agents for blocks in agent["engines"].values()}
                    return len(agents) == len(village.prefixes) and lengths == {PREFIX_BLOCKS}

                await until(knows_all)

                async def at_work() -> bool:
                    return (await report(api))["prefetches_used"] > 0

                await until(at_work)
            await daemon_sees_what_the_engine_holds(engine.url, api, "orphan", village.prefixes)
        assert village.failures == 0

    with Publisher("orphan", address=daemon.feed) as publisher:
        asyncio.run(scene(publisher))


def test_a_frozen_daemon_harms_nobody_and_catches_up(engine: VllmServer, daemon: DaemonProcess) -> None:
    async def scene(publisher: Publisher) -> None:
        village = SmallVillage(engine.url, publisher, "frozen")
        async with client(daemon.api) as api:
            async with village.living():
                await village.lives(steps=12)
                daemon.signal(signal.SIGSTOP)
                answered = len(village.answers)
                await village.lives(seconds=2.0)
                assert len(village.answers) > answered
                daemon.signal(signal.SIGCONT)
                used = (await report(api))["prefetches_used"]

                async def caught_up() -> bool:
                    (source,) = (await api.get("/v1/sources")).json()["sources"]
                    return not source["stale"] and source["clock"]["now"] >= village.now

                await until(caught_up)

                async def at_work() -> bool:
                    return (await report(api))["prefetches_used"] > used

                await until(at_work)
            await daemon_sees_what_the_engine_holds(engine.url, api, "frozen", village.prefixes)
        assert village.failures == 0

    with Publisher("frozen", address=daemon.feed) as publisher:
        asyncio.run(scene(publisher))
