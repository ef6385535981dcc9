"""How each kind of fault begins and is healed: a context manager over the world."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random

from redis.asyncio import Redis
from redis.exceptions import RedisError

from bench.chaos import disks
from bench.chaos.enginepath import Manner
from bench.chaos.engines import family
from bench.chaos.flood import flood
from bench.chaos.paths import Filter, Stream, Way
from bench.chaos.schedule import Fault, Kind
from bench.chaos.world import World

CUT_SECONDS = 0.7
LOSS = 0.6
SLOW_SECONDS = (0.02, 0.3)
JUMPS_SECONDS = (2.0, 90.0, 4_000.0, 90_000.0)

Effect = Callable[[World, Random], AbstractAsyncContextManager[None]]


async def strike(world: World, fault: Fault) -> None:
    """Let a fault happen when it is due, and heal it when it is over."""
    await asyncio.sleep(fault.at)
    async with EFFECTS[fault.kind](world, Random(fault.seed)):
        await asyncio.sleep(fault.seconds)


@asynccontextmanager
async def _daemon_killed(world: World, _: Random) -> AsyncIterator[None]:
    with world.outage("daemon"):
        world.kill_daemon()
        yield
        await world.revive_daemon()


@asynccontextmanager
async def _daemon_frozen(world: World, _: Random) -> AsyncIterator[None]:
    with world.outage("daemon"):
        if world.daemon.running:
            world.daemon.signal(signal.SIGSTOP)
        yield
        if world.daemon.running:
            world.daemon.signal(signal.SIGCONT)
        await world.answered()


# The store


def _own_valkey(world: World) -> Iterator[int]:
    """Yield the process ids of the Valkey that the daemon runs."""
    for pid in family(int(world.daemon.pids()[0]))[1:] if world.daemon.running else ():
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().startswith("valkey"):
                yield pid


def _signal_store(world: World, number: signal.Signals) -> None:
    if world.pair is not None:
        world.pair.primary.signal(number)
        return
    for pid in _own_valkey(world):
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@asynccontextmanager
async def _redis_killed(world: World, _: Random) -> AsyncIterator[None]:
    """Ours comes back empty, the daemon's own with what it had saved."""
    if world.pair is None:
        _signal_store(world, signal.SIGKILL)
    else:
        world.pair.primary.kill()
    yield
    if world.pair is not None:
        await world.pair.repair()


@asynccontextmanager
async def _redis_frozen(world: World, _: Random) -> AsyncIterator[None]:
    _signal_store(world, signal.SIGSTOP)
    yield
    _signal_store(world, signal.SIGCONT)


@asynccontextmanager
async def _redis_flushed(world: World, _: Random) -> AsyncIterator[None]:
    with suppress(RedisError, OSError):
        async with Redis.from_url(world.store_url) as client:
            await client.flushall()
    yield


@asynccontextmanager
async def _redis_failed_over(world: World, _: Random) -> AsyncIterator[None]:
    assert world.pair is not None
    await world.pair.fail_over()
    yield
    await world.pair.repair()


@asynccontextmanager
async def _redis_silent(world: World, _: Random) -> AsyncIterator[None]:
    assert world.pair is not None
    with _gone(world.pair.way):
        yield


# The engine, and the daemon's way to it


@asynccontextmanager
async def _engine_killed(world: World, _: Random) -> AsyncIterator[None]:
    server = world.engine.server
    with world.outage("engine"):
        await asyncio.to_thread(server.kill)
        yield
        world.lives += 1
        server.launch()
        await asyncio.to_thread(server.wait_ready)


@asynccontextmanager
async def _engine_frozen(world: World, _: Random) -> AsyncIterator[None]:
    with world.outage("engine"):
        world.engine.signal(signal.SIGSTOP)
        yield
        world.engine.signal(signal.SIGCONT)
        await asyncio.to_thread(world.engine.server.wait_ready)


@asynccontextmanager
async def _answers(manner: Manner, world: World, _: Random) -> AsyncIterator[None]:
    with world.outage("answers"):
        world.answers.manner = manner
        yield
        world.answers.manner = Manner.HONEST


@contextmanager
def _gone(*ways: Stream) -> Iterator[None]:
    for way in ways:
        way.go(Way.SILENT)
    yield
    for way in ways:
        way.go(Way.OPEN)


@asynccontextmanager
async def _kv_silent(world: World, _: Random) -> AsyncIterator[None]:
    with _gone(world.kv_way, world.replay_way):
        yield


@asynccontextmanager
async def _cut(ways: Callable[[World], tuple[Stream, ...]], world: World, _: Random) -> AsyncIterator[None]:
    """Again and again."""

    async def cut() -> None:
        while True:
            for way in ways(world):
                way.cut()
            await asyncio.sleep(CUT_SECONDS)

    cutting = asyncio.create_task(cut())
    yield
    cutting.cancel()


@asynccontextmanager
async def _filtered(
    way_of: Callable[[World], Stream], make: Callable[[Random], Filter], world: World, random: Random
) -> AsyncIterator[None]:
    way_of(world).filter = make(random)
    yield
    way_of(world).filter = None


def _losing(random: Random) -> Filter:
    return lambda message: () if random.random() < LOSS else (message,)


def _doubling(random: Random) -> Filter:
    """Each message twice, or together with one from before, or after the one that follows it."""
    kept: list[bytes] = []

    def double(message: bytes) -> list[bytes]:
        kept.append(message)
        match random.randrange(4):
            case 0:
                return [message, message]
            case 1:
                return [message, random.choice(kept)]
            case 2:
                return []
            case _:
                return [message, *kept[-2:-1]]

    return double


@asynccontextmanager
async def _feed_silent(world: World, _: Random) -> AsyncIterator[None]:
    with _gone(world.feed_way):
        yield


@asynccontextmanager
async def _feed_flooded(world: World, random: Random) -> AsyncIterator[None]:
    flooding = asyncio.create_task(flood(world.daemon.feed, random))
    yield
    flooding.cancel()
    await asyncio.wait([flooding])


# Disks and the clock


@asynccontextmanager
async def _full(folder_of: Callable[[World], Path], world: World, _: Random) -> AsyncIterator[None]:
    await asyncio.to_thread(disks.fill, folder_of(world))
    yield
    disks.drain(folder_of(world))


@asynccontextmanager
async def _disk_slow(world: World, random: Random) -> AsyncIterator[None]:
    assert world.shim is not None
    world.shim.set(delay=random.uniform(*SLOW_SECONDS))
    yield
    world.shim.set()


@asynccontextmanager
async def _clock(sign: int, world: World, random: Random) -> AsyncIterator[None]:
    """It jumps, and jumps back."""
    assert world.shim is not None
    world.shim.set(offset=sign * random.choice(JUMPS_SECONDS))
    yield
    world.shim.set()


EFFECTS: dict[Kind, Effect] = {
    Kind.DAEMON_KILLED: _daemon_killed,
    Kind.DAEMON_FROZEN: _daemon_frozen,
    Kind.REDIS_KILLED: _redis_killed,
    Kind.REDIS_FROZEN: _redis_frozen,
    Kind.REDIS_FLUSHED: _redis_flushed,
    Kind.REDIS_FAILED_OVER: _redis_failed_over,
    Kind.REDIS_SILENT: _redis_silent,
    Kind.ENGINE_KILLED: _engine_killed,
    Kind.ENGINE_FROZEN: _engine_frozen,
    Kind.ANSWERS_SILENT: partial(_answers, Manner.SILENT),
    Kind.ANSWERS_RESET: partial(_answers, Manner.RESET),
    Kind.ANSWERS_FAILING: partial(_answers, Manner.FAILING),
    Kind.ANSWERS_GARBAGE: partial(_answers, Manner.GARBAGE),
    Kind.ANSWERS_CUT: partial(_answers, Manner.CUT),
    Kind.ANSWERS_LYING: partial(_answers, Manner.LYING),
    Kind.KV_SILENT: _kv_silent,
    Kind.KV_CUT: partial(_cut, lambda world: (world.kv_way, world.replay_way)),
    Kind.KV_LOST: partial(_filtered, lambda world: world.kv_way, _losing),
    Kind.FEED_SILENT: _feed_silent,
    Kind.FEED_CUT: partial(_cut, lambda world: (world.feed_way,)),
    Kind.FEED_LOST: partial(_filtered, lambda world: world.feed_way, _losing),
    Kind.FEED_DOUBLED: partial(_filtered, lambda world: world.feed_way, _doubling),
    Kind.FEED_FLOODED: _feed_flooded,
    Kind.DISK_SLOW: _disk_slow,
    Kind.DISK_FULL: partial(_full, lambda world: world.disk),
    Kind.SHM_FULL: partial(_full, lambda world: world.shm),
    Kind.CLOCK_FORWARD: partial(_clock, 1),
    Kind.CLOCK_BACK: partial(_clock, -1),
}
