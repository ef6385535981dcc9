"""The daemon as a process beside a real SGLang: near agents are brought in, which the engine alone has evicted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from bench.rig import sglang
from bench.rig.daemon import DaemonProcess
from bench.rig.sglang import SglangServer
from scalesim_client import Publisher
from scalesim_daemon.doctor import examine
from tests.adapters.contract import BLOCK
from tests.daemon.live import until
from tests.engines.near_scene import AGENTS, NEAR, call, near_come_and_far_go
from tests.engines.small_village import PREFIX, complete, tokens

pytestmark = pytest.mark.engine


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
    with DaemonProcess(tmp_path, sglang_server.url, kind="sglang") as daemon:
        asyncio.run(near_come_and_far_go(daemon, sglang_server.url, far_keep=1.0))


def test_agents_of_whom_nothing_is_foreseen_are_demoted_and_lose_their_blocks_first(
    sglang_server: SglangServer, tmp_path: Path
) -> None:
    """The nearest have called first: under pressure they are the ones that SGLang alone evicts."""
    near, far = AGENTS[:3], AGENTS[3:7]

    async def scene(daemon: DaemonProcess) -> None:
        async with (
            httpx.AsyncClient(base_url=daemon.api, timeout=30) as api,
            httpx.AsyncClient(base_url=sglang_server.url, timeout=30) as engine,
        ):
            with Publisher("demoted", address=daemon.feed) as publisher:
                publisher.step(0)
                for agent in (*near, *far):
                    publisher.bind(agent, token_ids=tokens(f"demoted/{agent}"), model="base")
                    with publisher.invocation(agent):
                        assert await call(engine, f"demoted/{agent}") == 0
                for distance, agent in enumerate(near, 1):
                    publisher.activity(agent, for_=float(distance))

                async def latest(agent: str) -> tuple[str, str] | None:
                    said = (await api.get(f"/v1/agents/demoted/{agent}")).json()["decisions"]
                    return (said[0]["step"]["action"], said[0]["result"]) if said else None

                async def only_far_are_demoted() -> bool:
                    demoted = [await latest(agent) == ("demote", "done") for agent in (*near, *far)]
                    return demoted == [False] * len(near) + [True] * len(far)

                await until(only_far_are_demoted)
                await complete(engine, "demoted/pressure", tokens("demoted/pressure", 60 * BLOCK))
                assert [await call(engine, f"demoted/{agent}") for agent in near] == [PREFIX] * len(near)
                assert sum([await call(engine, f"demoted/{agent}") for agent in far]) < PREFIX * len(far)

    with DaemonProcess(tmp_path, sglang_server.url, kind="sglang", tagged=True) as daemon:
        asyncio.run(scene(daemon))
