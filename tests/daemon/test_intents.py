"""The intents, on the embedded Valkey and on an external server."""

from __future__ import annotations

import asyncio
import time

from scalesim_daemon.admin.steering import MOST_PINS
from scalesim_daemon.intents import Intents, StoreUnavailable
from scalesim_daemon.settings import RunMode
from tests.daemon.mirror_scene import OnServer, Scene


def test_intents_are_written_at_once_and_expire_by_the_wall(on_server: OnServer) -> None:
    async def body(scene: Scene) -> None:
        intents = Intents(scene.server.url)
        later = time.time() + 1000
        assert await intents.pins() == {}
        assert await intents.mode() is None
        await intents.pin("s/a", later)
        await intents.pin("s/b", later + 1)
        await intents.pin("s/over", time.time() - 1)
        await intents.set_mode(RunMode.OBSERVE)
        assert await scene.redis.ttl("ss:intent") == -1
        assert set(await scene.redis.hkeys("ss:intent")) == {"pin:s/a", "pin:s/b", "pin:s/over", "mode"}
        await intents.close()
        read = Intents(scene.server.url)
        assert await read.pins() == {"s/a": later, "s/b": later + 1}
        assert await read.mode() is RunMode.OBSERVE
        await read.unpin("s/a")
        await read.unpin("s/unknown")
        await read.pin("s/c", later, over=["s/old"])
        await read.unpin("s/c")
        await read.set_mode(None)
        assert await read.mode() is None
        await scene.redis.hset("ss:intent", mapping={"pin:s/odd": "soon", "mode": "sleeping"})
        assert await read.pins() == {"s/b": later + 1}
        assert await read.mode() is None
        assert set(await scene.redis.hkeys("ss:intent")) == {"pin:s/b", "mode"}
        await read.close()

    on_server(body)


def test_intents_say_when_redis_is_away() -> None:
    async def body() -> None:
        intents = Intents("redis://127.0.0.1:1/0")
        calls = (intents.pin("s/a", 1.0), intents.unpin("s/a"), intents.pins(), intents.mode())
        failures = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(failure, StoreUnavailable) for failure in failures)
        assert "Redis does not answer" in str(failures[0])
        await intents.close()

    asyncio.run(body())


def test_a_policy_that_evicts_intents_is_named(on_server: OnServer) -> None:
    async def body(scene: Scene) -> None:
        intents = Intents(scene.server.url)
        assert await intents.eviction_warning() is None
        await scene.redis.config_set("maxmemory-policy", "volatile-lru")
        assert await intents.eviction_warning() is None
        await scene.redis.config_set("maxmemory-policy", "allkeys-lru")
        warning = await intents.eviction_warning()
        assert warning is not None
        assert "maxmemory-policy allkeys-lru" in warning
        assert "noeviction" in warning
        await intents.close()

    on_server(body)


def test_as_many_pins_as_there_may_be_are_written_again(on_server: OnServer) -> None:
    async def body(scene: Scene) -> None:
        intents = Intents(scene.server.url)
        pins = {f"s/{agent}": time.time() + 60 for agent in range(MOST_PINS)}
        await intents.restate(pins, RunMode.OBSERVE)
        assert await intents.decided() == (pins, RunMode.OBSERVE)
        await intents.close()

    on_server(body)
