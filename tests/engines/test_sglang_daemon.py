"""The daemon as a process beside a real SGLang: near agents are brought in, which the engine alone has evicted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from bench.rig import sglang
from bench.rig.daemon import DaemonProcess
from bench.rig.sglang import SglangServer
from scalesim_daemon.doctor import examine
from tests.engines.near_scene import AGENTS, NEAR, call, near_come_and_far_go

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
