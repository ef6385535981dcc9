"""SGLang as the engine bench starts it: with our plug-in its host tier, too, keeps who is due soon, and a run finds it
empty."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from bench.engine.kind import Site
from bench.engine.on_sglang import SGLANG
from bench.rig import sglang
from bench.rig.sglang import SglangServer
from tests.adapters.contract import BLOCK
from tests.adapters.contract_tools import LONG
from tests.engines.sglang_inside import broadcasting, dues
from tests.engines.small_village import PREFIX, complete, tokens

pytestmark = pytest.mark.engine

# The device has room for two prompts and the tier for four.
PROMPT = PREFIX + 2 * BLOCK
NEAR, FAR = ("a0", "a1"), tuple(f"a{number}" for number in range(2, 8))


def test_the_tier_keeps_who_is_due_soon_and_is_emptied(tmp_path: Path) -> None:
    if not sglang.installed():
        pytest.skip(f"SGLang is not installed: {sglang.REMEDY}")

    async def call(*agents: str) -> list[int]:
        async with httpx.AsyncClient(base_url=server.url, timeout=LONG) as engine:
            return [await complete(engine, f"s/{agent}", tokens(agent, PREFIX + 1)) for agent in agents]

    async def emptied() -> bool:
        async with httpx.AsyncClient(base_url=server.url, timeout=LONG) as engine:
            return await SGLANG.emptied(engine)

    with SGLANG.launched(Site("due", tmp_path, "mid", 2 * PROMPT, 4 * PROMPT, dues(tmp_path))) as server:
        assert isinstance(server, SglangServer)
        server.wait_ready()
        near = dict.fromkeys((f"s/{agent}" for agent in NEAR), 1.0)
        with broadcasting(server, near | dict.fromkeys((f"s/{agent}" for agent in FAR), 9.0)):
            assert asyncio.run(call(*NEAR, *FAR)) == [0] * len(NEAR + FAR)
            assert asyncio.run(call(*NEAR)) == [PREFIX] * len(NEAR)
        assert asyncio.run(emptied())
        assert asyncio.run(call(*NEAR)) == [0] * len(NEAR)
