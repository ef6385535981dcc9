"""A mirror at work on a store, for tests that look at what it writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from scalesim_daemon.store import DueRecord, Mirror
from tests.daemon.stores import SERVERS, Server, client

DAY = 24 * 3600


@dataclass
class Scene:
    """A running server, a mirror of `state` on it, and a client that looks."""

    server: Server
    mirror: Mirror
    redis: Redis
    state: dict[str, DueRecord]

    def mark(self, agent: str, record: DueRecord | None) -> None:
        if record is None:
            self.state.pop(agent, None)
        else:
            self.state[agent] = record
        self.mirror.mark(agent, record)

    async def dues(self, simulation: str, clock: str = "step") -> dict[str, float]:
        return dict(await self.redis.zrange(f"ss:{{{simulation}}}:due:{clock}", 0, -1, withscores=True))


@asynccontextmanager
async def mirroring(url: str, state: dict[str, DueRecord]) -> AsyncIterator[Mirror]:
    mirror = Mirror(url)
    task = asyncio.create_task(mirror.run(lambda: dict(state)))
    try:
        yield mirror
    finally:
        task.cancel()
        assert isinstance((await asyncio.gather(task, return_exceptions=True))[0], asyncio.CancelledError)


OnServer = Callable[[Callable[[Scene], Coroutine[Any, Any, None]]], None]


def runner(kind: str) -> OnServer:
    """Return what runs a body, with a scene, on a new server of a kind of `SERVERS`."""

    async def run(body: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
        server: Server = SERVERS[kind]()
        await server.start()
        state: dict[str, DueRecord] = {}
        try:
            async with (
                asyncio.timeout(30),
                client(server.url) as redis,
                mirroring(server.url, state) as mirror,
            ):
                await body(Scene(server, mirror, redis, state))
        finally:
            await server.stop()

    return lambda body: asyncio.run(run(body))


def record(due: float = 7.0, **changes: Any) -> DueRecord:
    return DueRecord(
        **{"due": due, "clock": "step", "confidence": 0.5, "basis": "activity: asleep", **changes}
    )
