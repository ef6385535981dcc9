"""Faults of the daemon's own process, its disks and its clock."""

from __future__ import annotations

import asyncio
import signal
from random import Random

from bench.chaos import disks
from bench.chaos.effects import Effect, Last
from bench.chaos.world import World

SLOW_SECONDS = (0.02, 0.3)
JUMPS_SECONDS = (2.0, 90.0, 4_000.0, 90_000.0)


async def killed(world: World, _: Random, last: Last) -> int:
    """It crashes, and is started again."""
    with world.outage("daemon"):
        felt = int(world.daemon.running)
        world.kill_daemon()
        await last()
        await world.revive_daemon()
    return felt


async def frozen(world: World, _: Random, last: Last) -> int:
    """It stands still."""
    with world.outage("daemon"):
        felt = int(world.daemon.running)
        if felt:
            world.daemon.signal(signal.SIGSTOP)
        await last()
        if world.daemon.running:
            world.daemon.signal(signal.SIGCONT)
        await world.answered()
    return felt


async def disk_slow(world: World, random: Random, last: Last) -> int:
    """Its disk takes its time."""
    assert world.shim is not None
    before = world.shim.felt().delayed
    world.shim.set(delay=random.uniform(*SLOW_SECONDS))
    await last()
    world.shim.set()
    return world.shim.felt().delayed - before


async def disk_full(world: World, _: Random, last: Last) -> int:
    """There is no byte left for links, log, recording and its own Valkey."""
    assert world.shim is not None
    before = world.shim.felt().refused_disk
    await asyncio.to_thread(disks.fill, world.disk)
    await last()
    disks.drain(world.disk)
    return world.shim.felt().refused_disk - before


async def shm_full(world: World, _: Random, last: Last) -> int:
    """There is no byte left for copies of LoRAs."""
    assert world.shim is not None
    before = world.shim.felt().refused_elsewhere
    await asyncio.to_thread(disks.fill, world.shm)
    await last()
    disks.drain(world.shm)
    return world.shim.felt().refused_elsewhere - before


def clock(sign: int) -> Effect:
    """Return the fault of a clock that jumps, and jumps back."""

    async def effect(world: World, random: Random, last: Last) -> int:
        assert world.shim is not None
        before = world.shim.felt().misled
        world.shim.set(offset=sign * random.choice(JUMPS_SECONDS))
        await last()
        world.shim.set()
        return world.shim.felt().misled - before

    return effect
