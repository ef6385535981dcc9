"""Two daemons, one Redis: what one hears moves memory at the other, which alone has an engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

from scalesim_client import Publisher
from tests.daemon.fleet_rig import member, store
from tests.daemon.live import emulator, resident, until
from tests.daemon.test_road import PREFIX, complete, tokens


def test_what_one_daemon_hears_the_other_prefetches(tmp_path: Path) -> None:
    async def scene() -> None:
        async with store() as redis, member(tmp_path, "a", redis.url) as (a, at_a):
            with emulator(tmp_path, blocks=4 * 20 + 16) as engine:
                async with member(tmp_path, "b", redis.url, engine.url) as (_, at_b):
                    with Publisher("village", address=a.feed_address) as publisher:
                        for agent in range(8):
                            publisher.bind(f"a{agent}", token_ids=tokens(agent))
                            publisher.activity(f"a{agent}", until=float(10 - agent))
                        publisher.step(0.0)

                        async def near_resident() -> bool:
                            return all(
                                [await resident(at_b, f"village/a{agent}") == 20 for agent in (7, 6, 5)]
                            )

                        await until(near_resident)
                        assert await resident(at_b, "village/a0") == 0
                        for agent in (7, 6):
                            with publisher.invocation(f"a{agent}"):
                                assert await asyncio.to_thread(publisher.flush, 5)
                                cached = await complete(
                                    engine.url, f"village/a{agent}", [*tokens(agent), 1, 2]
                                )
                            assert cached == PREFIX
                        told = (await at_b.get("/v1/agents/village/a5")).json()
                        assert told["basis"].startswith("activity") and told["distance"] == 5.0
                        for api in (at_a, at_b):
                            assert (await api.get("/v1/agents/village/a5")).json()["engine"] == "engine-0"
                            home = (await api.get("/v1/placement", params={"agent": "village/a5"})).json()
                            assert home == {"agent": "village/a5", "engine": "engine-0", "url": engine.url}

    asyncio.run(scene())
