"""The whole road on the emulated engine: events in, memory moved, and one can see why."""

import asyncio
from pathlib import Path

import httpx
import redis

from scalesim_client import Publisher
from scalesim_client.events import InvocationFinished, InvocationStarted
from tests.daemon.live import daemon, emulator, report, resident, until

BLOCK = 32
PREFIX = 20 * BLOCK


def tokens(agent: int) -> list[int]:
    return [agent * 1000 + position for position in range(PREFIX)]


async def complete(engine: str, agent: str, prompt: list[int]) -> int:
    """Send an agent's request as a simulation does; return how many of its tokens were cached."""
    async with httpx.AsyncClient(base_url=engine, timeout=10) as client:
        body = {"model": "base", "prompt": prompt, "max_tokens": 2, "session_id": agent}
        answer = await client.post("/v1/completions", json=body)
        assert answer.status_code == 200, answer.text
        details = answer.json()["usage"]["prompt_tokens_details"] or {}
        return int(details.get("cached_tokens") or 0)


def test_the_nearest_agents_are_prefetched_and_their_calls_hit(tmp_path: Path) -> None:
    async def scene() -> None:
        with emulator(tmp_path, blocks=4 * 20 + 16) as engine:
            async with daemon(tmp_path, engine.url) as (sidecar, api):
                with Publisher("village", address=sidecar.feed_address) as publisher:
                    for agent in range(8):
                        publisher.bind(f"a{agent}", token_ids=tokens(agent))
                        publisher.activity(f"a{agent}", until=float(10 - agent))
                    publisher.step(0.0)

                    async def near_resident() -> bool:
                        return all([await resident(api, f"village/a{agent}") == 20 for agent in (7, 6, 5)])

                    await until(near_resident)
                    assert await resident(api, "village/a0") == 0
                    for agent in (7, 6):
                        with publisher.invocation(f"a{agent}"):
                            assert await asyncio.to_thread(publisher.flush, 5)
                            cached = await complete(engine.url, f"village/a{agent}", [*tokens(agent), 1, 2])
                        assert cached == PREFIX

                    async def scored() -> bool:
                        return (await report(api))["prefetches_used"] == 2

                    await until(scored)
                    explained = (await api.get("/v1/agents/village/a5")).json()
                    assert explained["basis"].startswith("activity") and explained["distance"] == 5.0

    asyncio.run(scene())


def test_a_prefix_is_learned_from_the_engines_events_alone(tmp_path: Path) -> None:
    async def scene() -> None:
        with emulator(tmp_path, blocks=64) as engine:
            async with daemon(tmp_path, engine.url) as (sidecar, api):
                with Publisher("village", address=sidecar.feed_address) as publisher:
                    calls = [("b", [*tokens(3), *range(9_000 * turn, 9_000 * turn + 64)]) for turn in (1, 2)]
                    calls += [("other", tokens(other)) for other in range(4, 8)]
                    for agent, prompt in calls:
                        with publisher.invocation(agent):
                            assert await asyncio.to_thread(publisher.flush, 5)
                            await complete(engine.url, f"village/{agent}", prompt)
                    publisher.activity("b", until=1.0)

                    async def back() -> bool:
                        return (
                            await resident(api, "village/b") == 20 and (await report(api))["prefetches"] > 0
                        )

                    await until(back)

    asyncio.run(scene())


def test_dues_are_in_redis_under_the_documented_keys(tmp_path: Path) -> None:
    async def scene() -> None:
        async with daemon(tmp_path) as (sidecar, _):
            store = redis.Redis(
                unix_socket_path=str(tmp_path / "valkey" / "valkey.sock"), decode_responses=True
            )
            with Publisher("village", address=sidecar.feed_address) as publisher:
                publisher.step(3.0)
                publisher.activity("a", for_=4.0)

                async def written() -> bool:
                    due = await asyncio.to_thread(store.zscore, "ss:{village}:due:step", "a")
                    now = await asyncio.to_thread(store.hget, "ss:{village}:clock", "now")
                    return (due, now and float(now)) == (7.0, 3.0)

                await until(written)
            store.close()

    asyncio.run(scene())


def test_observe_plans_and_acts_on_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        with emulator(tmp_path, blocks=64) as engine:
            async with daemon(tmp_path, engine.url, mode="observe") as (sidecar, api):
                with Publisher("village", address=sidecar.feed_address) as publisher:
                    publisher.bind("a", token_ids=tokens(1))
                    publisher.activity("a", for_=2.0)

                    async def planned() -> bool:
                        return bool((await api.get("/v1/plan")).json()["engines"][0]["blocks"])

                    await until(planned)
                assert (await report(api))["prefetches"] == 0
                assert await resident(api, "village/a") == 0

    asyncio.run(scene())


def test_speculative_work_stops_when_an_invocation_starts(tmp_path: Path) -> None:
    async def scene() -> None:
        with emulator(tmp_path, blocks=64, time_scale=1.0) as engine:
            async with daemon(tmp_path, engine.url) as (sidecar, api):
                with Publisher("village", address=sidecar.feed_address) as publisher:
                    publisher.bind("far", token_ids=tokens(1))
                    publisher.activity("far", for_=3.0)

                    async def at_work() -> bool:
                        return bool((await api.get("/v1/plan")).json()["engines"][0]["in_flight"])

                    await until(at_work)
                    publisher.send(InvocationStarted(agent="other"))

                    async def stopped() -> bool:
                        return (await report(api))["cancelled"] == 1

                    await until(stopped)
                    assert not (await api.get("/v1/plan")).json()["engines"][0]["in_flight"]
                    publisher.send(InvocationFinished(agent="other"))
                    await until(lambda: _whole(api))

    async def _whole(api: httpx.AsyncClient) -> bool:
        return await resident(api, "village/far") == 20

    asyncio.run(scene())


def test_a_village_in_steps_is_not_taken_for_traffic_that_nobody_announced(tmp_path: Path) -> None:
    """Every step cancels a prefetch and sends several calls at once, whose announcements come first."""

    async def scene() -> None:
        with emulator(tmp_path, blocks=100, time_scale=0.3) as engine:
            async with daemon(tmp_path, engine.url) as (sidecar, api):
                with Publisher("village", address=sidecar.feed_address) as publisher:
                    for agent in range(9):
                        publisher.bind(f"a{agent}", token_ids=tokens(agent))
                    for now in range(6):
                        publisher.step(now)
                        callers = [(3 * now + offset) % 9 for offset in range(3)]
                        for agent in range(9):
                            publisher.activity(f"a{agent}", until=now + 1 + (agent - 3 * now) % 9 // 3)

                        async def at_work() -> bool:
                            return bool((await api.get("/v1/plan")).json()["engines"][0]["in_flight"])

                        await until(at_work)

                        async def call(agent: int) -> None:
                            with publisher.invocation(f"a{agent}"):
                                await complete(engine.url, f"village/a{agent}", [*tokens(agent), 1, 2])

                        await asyncio.gather(*map(call, callers))
                seen = (await api.get("/v1/engines")).json()["engines"][0]
                assert seen["shared"] is False
                assert (await report(api))["cancelled"] > 0

    asyncio.run(scene())
