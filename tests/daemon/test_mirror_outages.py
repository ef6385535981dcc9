"""The mirror where the store, a write or a daemon before it fails: the newest state comes back by itself."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Literal

import pytest
from redis.exceptions import ConnectionError
from structlog.testing import capture_logs

from bench.chaos.paths import Stream, Way
from scalesim_daemon import store
from scalesim_daemon.store import DueRecord, Mirror
from tests.daemon.mirror_scene import DAY, OnServer, Scene, mirroring, record
from tests.daemon.stores import SERVERS, client


def test_what_a_killed_daemon_left_expires_and_is_replaced(on_server: OnServer) -> None:
    async def body(scene: Scene) -> None:
        scene.mark("s/gone", record())
        scene.mark("s/moved", record())
        scene.mark("other/a", record())
        scene.mirror.clock("s", "step", 1.0, 1.0)
        await scene.mirror.drained()
        assert all([0 < await scene.redis.ttl(key) <= DAY for key in await scene.redis.keys("*")])
        after = {"s/moved": record(9.0, clock="sim_seconds")}
        async with mirroring(scene.server.url, after) as next_daemon:
            next_daemon.mark("s/new", record(1.0))
            await next_daemon.drained()
        assert await scene.dues("s") == {"new": 1.0}
        assert await scene.dues("s", "sim_seconds") == {"moved": 9.0}
        assert not await scene.redis.exists("ss:{s}:agent:gone")
        assert await scene.dues("other") == {"a": 7.0}, "another simulation is not this daemon's to clear"

    on_server(body)


def test_redis_goes_away_and_comes_back(on_server: OnServer) -> None:
    async def body(scene: Scene) -> None:
        for number in range(1200):
            scene.mark(f"s/{number}", record(number))
        scene.mirror.clock("s", "step", 1.0, 1.0)
        scene.mirror.clock("silent", "step", 3.0, 1.0)
        await scene.mirror.drained()
        await scene.redis.zadd("ss:{s}:due:step", {"ghost": 1.0})
        await scene.server.kill()
        for number in range(600):
            scene.mark(f"s/{number}", record(number + 0.5))
        scene.mark("s/1000", None)
        scene.mirror.clock("s", "step", 2.0, 1.0)
        scene.mirror.decision({"key": "s/1", "reason": "said while it was away"})
        await scene.server.back()
        await scene.mirror.drained()
        expected = {str(n): n + 0.5 if n < 600 else float(n) for n in range(1200) if n != 1000}
        assert await scene.dues("s") == expected
        assert await scene.redis.hget("ss:{s}:clock", "now") == "2.0"
        assert await scene.redis.hget("ss:{silent}:clock", "now") == "3.0"
        assert len(await scene.redis.keys("ss:{s}:agent:*")) == 1199
        assert await scene.redis.xlen("ss:decisions") in (1, 2)
        assert scene.mirror.connected

    on_server(body)


def test_who_came_and_went_while_redis_was_away_takes_no_memory(on_server: OnServer) -> None:
    async def body(scene: Scene) -> None:
        scene.mirror.clock("s", "step", 1.0, 1.0)
        scene.mark("s/stays", record())
        scene.mark("s/goes", record())
        await scene.mirror.drained()
        await scene.server.kill()
        for number in range(500):
            scene.mark(f"s/{number}", record(number))
            scene.mark(f"s/{number}", None)
        scene.mark("s/goes", None)
        scene.mark("s/stays", record(3.0))
        async with asyncio.timeout(10):
            while scene.mirror.pending > 1:  # noqa: ASYNC110  # it tells nobody
                await asyncio.sleep(0.05)
        await scene.server.back()
        await scene.mirror.drained()
        assert await scene.dues("s") == {"stays": 3.0}

    on_server(body)


def test_a_write_that_fails_is_done_again_with_what_is_newest(
    on_server: OnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(scene: Scene) -> None:
        send = scene.mirror._send

        async def interrupted(*written: Any) -> None:
            monkeypatch.setattr(scene.mirror, "_send", send)
            scene.mark("s/a", record(3.0))
            raise ConnectionError("cut")

        scene.mark("s/a", record(1.0))
        scene.mark("gone/a", record(1.0))
        await scene.mirror.drained()
        monkeypatch.setattr(scene.mirror, "_send", interrupted)
        scene.mark("s/a", record(2.0))
        scene.mark("gone/a", None)
        await scene.mirror.drained()
        assert await scene.dues("s") == {"a": 3.0}
        assert await scene.dues("gone") == {}

    on_server(body)


def test_a_primary_that_became_a_replica_is_left() -> None:
    async def body() -> None:
        before, after = SERVERS["external"](), SERVERS["external"]()
        await before.start()
        await after.start()
        way = Stream("127.0.0.1:0", before.url.removeprefix("redis://").removesuffix("/0"))
        await way.start()
        state = {"s/still": record()}
        try:
            async with (
                asyncio.timeout(30),
                client(before.url) as old,
                client(after.url) as new,
                mirroring(f"redis://{way.listen}/0", state) as mirror,
            ):
                await mirror.drained()
                # New connections lead to the new primary, and the one that there is stays.
                way.to = after.url.removeprefix("redis://").removesuffix("/0")
                host, _, port = way.to.partition(":")
                # What it is given at first is not left as a file here.
                await old.config_set("repl-diskless-load", "swapdb")
                await old.replicaof(host, port)
                mirror.mark("s/busy", record(1.0))
                due = "ss:{s}:due:step"
                while dict(await new.zrange(due, 0, -1, withscores=True)) != {"still": 7.0, "busy": 1.0}:
                    await new.ping()
        finally:
            await way.close()
            await before.stop()
            await after.stop()

    asyncio.run(body())


def test_a_redis_that_says_nothing_is_given_up_and_connected_to_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "ANSWER_SECONDS", 1.0)

    async def body() -> None:
        server = SERVERS["external"]()
        await server.start()
        way = Stream("127.0.0.1:0", server.url.removeprefix("redis://").removesuffix("/0"))
        await way.start()
        state: dict[str, DueRecord] = {}
        try:
            async with (
                asyncio.timeout(30),
                client(server.url) as redis,
                mirroring(f"redis://{way.listen}/0", state) as mirror,
            ):
                await mirror.drained()
                way.go(Way.SILENT)
                state["s/a"] = record(1.0)
                mirror.mark("s/a", state["s/a"])
                with capture_logs() as said:
                    while mirror.connected:  # noqa: ASYNC110  # nobody tells of it
                        await asyncio.sleep(0.01)
                assert said[0]["error"] == "TimeoutError"
                way.go(Way.OPEN)
                await mirror.drained()
                assert await redis.zrange("ss:{s}:due:step", 0, -1) == ["a"]
        finally:
            await way.close()
            await server.stop()

    asyncio.run(body())


def test_a_restart_that_no_write_noticed_is_noticed(on_server: OnServer) -> None:
    async def body(scene: Scene) -> None:
        scene.mark("s/a", record())
        await scene.mirror.drained()
        await scene.server.kill()
        await scene.server.back()
        await scene.redis.flushall()
        # Nothing more is marked: the heartbeat alone finds out.
        while not await scene.dues("s"):
            await scene.redis.ping()
        assert await scene.dues("s") == {"a": 7.0}

    on_server(body)


def test_a_loss_of_all_data_is_noticed_though_the_connection_stays(on_server: OnServer) -> None:
    async def body(scene: Scene) -> None:
        scene.mark("s/still", record())
        scene.mirror.clock("s", "step", 1.0, 1.0)
        await scene.mirror.drained()
        await scene.redis.flushall()
        # Others keep the mirror busy, so that it is never idle.
        while await scene.dues("s") != {"still": 7.0, "busy": 1.0}:
            scene.mark("s/busy", record(1.0))
            await asyncio.sleep(0.01)
        assert await scene.redis.hget("ss:{s}:clock", "now") == "1.0"

    on_server(body)


def test_what_expires_since_a_clock_was_behind_is_told_again(on_server: OnServer) -> None:
    async def body(scene: Scene) -> None:
        scene.mark("s/still", record())
        await scene.mirror.drained()
        (presence,) = await scene.redis.keys("ss:mirror:*")
        # The server's clock goes back by more than a day: what it has lasts so much longer.
        for key in await scene.redis.keys("*"):
            await scene.redis.expire(key, 3 * DAY)
        scene.mark("s/busy", record(1.0))
        while await scene.redis.ttl(presence) > DAY:
            await scene.redis.ping()
        # It is set right: what was written meanwhile is over.
        for key in await scene.redis.keys("*"):
            if await scene.redis.ttl(key) <= DAY:
                await scene.redis.delete(key)
        while await scene.dues("s") != {"still": 7.0, "busy": 1.0}:
            await scene.redis.ping()

    on_server(body)


class WatchedEvent(asyncio.Event):
    """Tells when somebody starts to wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for = asyncio.Event()

    async def wait(self) -> Literal[True]:
        self.waited_for.set()
        return await super().wait()


def test_it_can_be_cancelled_in_the_moment_of_a_mark(
    on_server: OnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(scene: Scene) -> None:
        mirror = Mirror(scene.server.url)
        event = WatchedEvent()
        monkeypatch.setattr(mirror, "_dirty", event)
        task = asyncio.create_task(mirror.run(dict))
        await event.waited_for.wait()
        mirror.mark("s/a", record())
        task.cancel()
        async with asyncio.timeout(5):
            await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    on_server(body)


def test_the_end_of_an_outage_of_hours_is_noticed() -> None:
    async def body() -> None:
        server = SERVERS["external"]()
        async with asyncio.timeout(30), mirroring(server.url, {"s/a": record()}) as mirror:
            mirror._failures = 100_000
            while mirror._failures == 100_000:  # noqa: ASYNC110  # nobody tells of it
                await asyncio.sleep(0.01)
            await server.start()
            try:
                await mirror.drained()
            finally:
                await server.stop()

    asyncio.run(body())


def test_without_redis_nothing_is_lost_and_nobody_waits() -> None:
    async def body() -> None:
        server = SERVERS["external"]()
        state = {f"s/{number}": record(number) for number in range(10)}
        async with asyncio.timeout(30), mirroring(server.url, state) as mirror:
            started = time.monotonic()
            for number in range(10_000):
                mirror.mark(f"s/{number % 20}", record(number))
            assert time.monotonic() - started < 2
            assert not mirror.connected
            await server.start()
            try:
                await mirror.drained()
                assert mirror.connected
                async with client(server.url) as redis:
                    assert await redis.zcard("ss:{s}:due:step") == 20
            finally:
                await server.stop()

    asyncio.run(body())
