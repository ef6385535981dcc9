"""What must not bring the daemon down, nor cost a simulation a request."""

import asyncio
from pathlib import Path

import msgpack
import pytest
import redis.asyncio

from scalesim_adapters.emulator.faults import Restart, Status
from scalesim_client import Publisher
from scalesim_client.codec import pack_frames
from tests.daemon.live import Raw, daemon, emulator, report, resident, until
from tests.daemon.stores import External

BLOCK = 32


def tokens(agent: int) -> list[int]:
    return [agent * 1000 + position for position in range(10 * BLOCK)]


@pytest.mark.parametrize(
    ("event", "named"),
    [
        ({"type": "agent.teleported", "agent": "a"}, "unknown event type"),
        ({"type": "agent.moved", "agent": "a", "speed": "fast"}, "speed"),
        ({"type": "agent.activity_started", "agent": "a", "for": -1.0}, "for"),
        ({"type": "agent.activity_started", "agent": "a", "until": float("nan")}, "until"),
        ({"type": "agent.activity_started", "agent": ""}, "agent"),
        ({"type": "step.advanced", "now": float("inf")}, "now"),
        ({"agent": "a"}, "type"),
        (["agent.moved"], "map"),
    ],
)
def test_a_bad_event_is_named_and_its_neighbours_are_taken(
    tmp_path: Path, event: object, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def scene() -> None:
        async with daemon(tmp_path) as (sidecar, api):
            source = Raw(sidecar.feed_address)
            await source.open()
            good = [
                {"type": "agent.activity_started", "agent": name, "for": 5.0} for name in ("left", "right")
            ]
            payload = msgpack.packb([1.0, [good[0], event, good[1]]])
            await source.send(pack_frames("raw", source.seq, payload))

            async def taken() -> bool:
                return (await api.get("/v1/agents")).json()["total"] == 2

            await until(taken)
            assert (await api.get("/health")).status_code == 200
            source.close()

    asyncio.run(scene())
    logged = capsys.readouterr().err
    assert "event ignored" in logged and named in logged


def test_a_huge_message_costs_its_sender_the_connection_and_nothing_else(tmp_path: Path) -> None:
    async def scene() -> None:
        async with daemon(tmp_path) as (sidecar, api):
            flood = Raw(sidecar.feed_address, "flood")
            await flood.open()
            await flood.send([b"flood", (1).to_bytes(8, "big"), b"[" + b" " * 100_000_000])
            with Publisher("village", address=sidecar.feed_address) as publisher:
                publisher.activity("a", for_=1.0)

                async def heard() -> bool:
                    return (await api.get("/v1/agents/village/a")).status_code == 200

                await until(heard)
            answer = await api.post("/v1/events", content=b"[" + b" " * 5_000_000)
            assert answer.status_code == 413
            flood.close()

    asyncio.run(scene())


def test_a_clock_that_jumps_back_voids_the_dues_and_keeps_the_memory(tmp_path: Path) -> None:
    async def scene() -> None:
        async with daemon(tmp_path) as (sidecar, api):
            with Publisher("village", address=sidecar.feed_address) as publisher:
                publisher.step(100.0)
                publisher.bind("a", token_ids=tokens(1))
                publisher.activity("a", until=110.0)

                async def due() -> bool:
                    answer = await api.get("/v1/agents/village/a")
                    return answer.status_code == 200 and answer.json()["due"] == 110.0

                await until(due)
                publisher.step(2.0)

                async def void() -> bool:
                    return (await api.get("/v1/agents/village/a")).json()["due"] is None

                await until(void)
                assert (await api.get("/v1/agents/village/a")).json()["items"] == ["prefix_kv"]
                publisher.activity("a", until=4.0)

                async def again() -> bool:
                    return (await api.get("/v1/agents/village/a")).json()["distance"] == 2.0

                await until(again)

    asyncio.run(scene())


def test_two_simulations_may_have_the_same_agent_ids(tmp_path: Path) -> None:
    async def scene() -> None:
        async with daemon(tmp_path) as (sidecar, api):
            one = Publisher("one", address=sidecar.feed_address)
            two = Publisher("two", address=sidecar.feed_address)
            with one, two:
                one.activity("1", until=3.0)
                two.activity("1", until=9.0)

                async def apart() -> bool:
                    found = (await api.get("/v1/agents")).json()["agents"]
                    return {agent["key"]: agent["distance"] for agent in found} == {
                        "one/1": 3.0,
                        "two/1": 9.0,
                    }

                await until(apart)

    asyncio.run(scene())


def test_an_agent_never_heard_of_is_far_and_asking_for_it_is_no_error_of_ours(tmp_path: Path) -> None:
    async def scene() -> None:
        async with daemon(tmp_path) as (_, api):
            answer = await api.get("/v1/agents/village/nobody")
            assert answer.status_code == 404
            assert "nobody" in answer.text

    asyncio.run(scene())


def test_an_unknown_major_version_is_refused_in_the_welcome(tmp_path: Path) -> None:
    async def scene() -> None:
        async with daemon(tmp_path) as (sidecar, _):
            source = Raw(sidecar.feed_address)
            welcome = await source.open(version="2.0")
            assert "2.0" in welcome["error"]
            source.close()

    asyncio.run(scene())


def test_an_engine_that_is_down_at_start_is_used_when_it_comes(tmp_path: Path) -> None:
    async def scene() -> None:
        engine = emulator(tmp_path, blocks=64)
        with engine:
            url = engine.url
        async with daemon(tmp_path, url) as (sidecar, api):
            assert (await api.get("/ready")).status_code == 503
            with Publisher("village", address=sidecar.feed_address) as publisher:
                publisher.bind("a", token_ids=tokens(1))
                publisher.activity("a", for_=2.0)
                with engine:

                    async def loaded() -> bool:
                        return await resident(api, "village/a") == 10

                    await until(loaded)
                    assert (await api.get("/ready")).status_code == 200

    asyncio.run(scene())


def test_an_engine_that_restarts_is_filled_again(tmp_path: Path) -> None:
    async def scene() -> None:
        with emulator(tmp_path, blocks=64) as engine:
            async with daemon(tmp_path, engine.url) as (sidecar, api):
                with Publisher("village", address=sidecar.feed_address) as publisher:
                    publisher.bind("a", token_ids=tokens(1))
                    publisher.activity("a", for_=2.0)

                    async def loaded() -> bool:
                        return await resident(api, "village/a") == 10

                    await until(loaded)
                    engine.inject(Restart())

                    async def noticed() -> bool:
                        return (await api.get("/v1/engines")).json()["engines"][0]["restarts"] == 1

                    await until(noticed)
                    await until(loaded)

    asyncio.run(scene())


def test_an_engine_that_answers_500_is_tried_again(tmp_path: Path) -> None:
    async def scene() -> None:
        with emulator(tmp_path, blocks=64) as engine:
            async with daemon(tmp_path, engine.url) as (sidecar, api):

                async def ready() -> bool:
                    return (await api.get("/ready")).status_code == 200

                await until(ready)
                engine.inject(Status("/v1/completions", times=2))
                with Publisher("village", address=sidecar.feed_address) as publisher:
                    publisher.bind("a", token_ids=tokens(1))
                    publisher.activity("a", for_=2.0)

                    async def loaded() -> bool:
                        return await resident(api, "village/a") == 10

                    await until(loaded)
                    assert (await report(api))["failed"] >= 1

    asyncio.run(scene())


def test_redis_that_goes_away_and_comes_back_is_filled_again(tmp_path: Path) -> None:
    async def scene() -> None:
        server = External()
        await server.start()
        store = redis.asyncio.Redis.from_url(server.url, decode_responses=True)
        try:
            async with daemon(tmp_path, redis={"url": server.url}) as (sidecar, api):
                with Publisher("village", address=sidecar.feed_address) as publisher:
                    publisher.activity("a", until=5.0)

                    async def written(agent: str = "a", due: float = 5.0) -> bool:
                        try:
                            return bool(await store.zscore("ss:{village}:due:step", agent) == due)
                        except redis.RedisError:
                            return False

                    await until(written)
                    await server.kill()
                    publisher.activity("b", until=6.0)

                    async def heard() -> bool:
                        return (await api.get("/v1/agents")).json()["total"] == 2

                    await until(heard)
                    assert (await api.get("/health")).status_code == 200
                    await server.back()
                    await until(written)
                    await until(lambda: written("b", 6.0))
        finally:
            await store.aclose()
            await server.stop()

    asyncio.run(scene())
