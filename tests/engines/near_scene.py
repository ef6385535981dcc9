"""A scene for any real engine: all agents have called, the last of them last, and then the first become the nearest."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import httpx

from bench.rig.daemon import DaemonProcess
from scalesim_client import Publisher
from tests.adapters.contract import BLOCK
from tests.daemon.live import report, resident, until
from tests.engines.small_village import PREFIX, complete, tokens

PREFIX_BLOCKS = PREFIX // BLOCK
AGENTS = [f"a{number}" for number in range(12)]
NEAR, FAR = AGENTS[:5], AGENTS[-2:]


async def call(engine: httpx.AsyncClient, agent: str) -> int:
    """Send an agent's request; return how many tokens of its prompt were cached."""
    return await complete(engine, agent, [*tokens(agent), 11, 12])


async def near_come_and_far_go(daemon: DaemonProcess, engine_url: str, far_keep: float) -> None:
    """Play it: of their prefixes the near agents have all in the end, the far ones less than the share `far_keep`."""
    with Publisher("near", address=daemon.feed) as publisher:
        async with (
            httpx.AsyncClient(base_url=daemon.api, timeout=30) as api,
            httpx.AsyncClient(base_url=engine_url, timeout=30) as engine,
        ):
            await _everyone_calls(publisher, api, engine)
            publisher.step(0)
            for distance, agent in enumerate(AGENTS):
                publisher.activity(agent, for_=10.0 + distance)

            async def moved() -> bool:
                held = [await resident(api, f"near/{agent}") for agent in NEAR]
                left = [await resident(api, f"near/{agent}") for agent in FAR]
                return set(held) == {PREFIX_BLOCKS} and max(left) < far_keep * PREFIX_BLOCKS

            await until(moved)
            # While all are announced at once, the daemon moves nothing between one call and the next.
            with ExitStack() as calls:
                for agent in (*NEAR, *FAR):
                    calls.enter_context(publisher.invocation(agent))
                assert await asyncio.to_thread(publisher.flush, 5)

                async def heard() -> bool:
                    return (await api.get(f"/v1/agents/near/{FAR[-1]}")).json()["in_flight"] == 1

                await until(heard)
                assert [await call(engine, f"near/{agent}") for agent in NEAR] == [PREFIX] * len(NEAR)
                assert all([await call(engine, f"near/{agent}") < far_keep * PREFIX for agent in FAR])

            async def scored() -> bool:
                return (await report(api))["prefetches_used"] == len(NEAR)

            await until(scored)


async def _everyone_calls(publisher: Publisher, api: httpx.AsyncClient, engine: httpx.AsyncClient) -> None:
    for agent in AGENTS:
        publisher.bind(agent, token_ids=tokens(f"near/{agent}"), model="base")
        with publisher.invocation(agent):
            assert await asyncio.to_thread(publisher.flush, 5)
            assert await call(engine, f"near/{agent}") == 0

    async def far_are_there() -> bool:
        held = [await resident(api, f"near/{agent}") for agent in (NEAR[0], *FAR)]
        return held == [0, PREFIX_BLOCKS, PREFIX_BLOCKS]

    await until(far_are_there)
