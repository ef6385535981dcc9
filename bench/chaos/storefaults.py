"""Faults of the store: the daemon's own Valkey, or ours with its replica."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import httpx
from redis.asyncio import Redis

from bench.chaos.effects import Last, silenced
from bench.chaos.engines import family
from bench.chaos.stores import UNREACHABLE, refused, served
from bench.chaos.world import World

SET_BACK_PINS = 200_000


async def killed(world: World, _: Random, last: Last) -> int:
    """Ours comes back empty, the daemon's own with what it had saved."""
    if world.pair is None:
        struck = _signal_own(world, signal.SIGKILL)
        await last()
        return struck
    before = world.pair.way.ended
    world.pair.primary.kill()
    await last()
    felt = world.pair.way.ended - before
    await world.pair.repair()
    return felt


async def frozen(world: World, _: Random, last: Last) -> int:
    """Whatever is asked meanwhile is done after it."""
    with suppress(*UNREACHABLE):
        before = await served(world.store_url)
        _signal(world, signal.SIGSTOP)
        await last()
        _signal(world, signal.SIGCONT)
        return await served(world.store_url) - before
    return 0


async def flushed(world: World, _: Random, last: Last) -> int:
    """What it had is gone, and nobody is told."""
    lost = 0
    with suppress(*UNREACHABLE):
        async with Redis.from_url(world.store_url) as client:
            lost = await client.dbsize()
            await client.flushall()
    await last()
    return lost


async def full(world: World, _: Random, last: Last) -> int:
    """It has no memory left, and refuses what would take more."""
    with suppress(*UNREACHABLE):
        async with Redis.from_url(world.store_url) as client:
            before = await refused(world.store_url, "OOM")
            await client.config_set("maxmemory", 1)
            await last()
            felt = await refused(world.store_url, "OOM") - before
            await client.config_set("maxmemory", 0)
            return felt
    return 0


async def failed_over(world: World, _: Random, last: Last) -> int:
    """The primary is killed and its replica promoted."""
    assert world.pair is not None
    before = world.pair.way.ended + world.pair.way.spoilt
    await world.pair.fail_over()
    await last()
    felt = world.pair.way.ended + world.pair.way.spoilt - before
    await world.pair.repair()
    return felt


async def demoted(world: World, _: Random, last: Last) -> int:
    """Primary and replica change roles, and connections to the old primary stay."""
    assert world.pair is not None
    before = await world.pair.demote()
    await last()
    return await refused(before.url, "READONLY")


async def set_back(world: World, random: Random, last: Last) -> int:
    """The primary is killed, and its replica has not followed for a while. Meanwhile an operator pins somebody."""
    assert world.pair is not None
    await world.pair.part()
    before = await served(world.pair.primary.url)
    with suppress(httpx.HTTPError):
        await world.pin(f"{world.simulation}/a{random.randrange(2, 9):02}", SET_BACK_PINS)
    await last()
    felt = await served(world.pair.primary.url) - before
    await world.pair.fail_over()
    await world.pair.repair()
    return felt


async def silent(world: World, _: Random, last: Last) -> int:
    """Half-open connections."""
    assert world.pair is not None
    return await silenced((world.pair.way,), last)


def _signal(world: World, number: signal.Signals) -> None:
    if world.pair is None:
        _signal_own(world, number)
    else:
        world.pair.primary.signal(number)


def _signal_own(world: World, number: signal.Signals) -> int:
    """Send a signal to the Valkey that the daemon runs; return to how many."""
    pids = list(_own_valkey(world))
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    return len(pids)


def _own_valkey(world: World) -> Iterator[int]:
    for pid in family(int(world.daemon.pids()[0]))[1:] if world.daemon.running else ():
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().startswith("valkey"):
                yield pid
