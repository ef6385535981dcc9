"""Faults of the engine, and of its answers to the daemon."""

from __future__ import annotations

import asyncio
import signal
from random import Random

from bench.chaos.effects import Effect, Last
from bench.chaos.enginepath import Manner
from bench.chaos.world import World


async def killed(world: World, _: Random, last: Last) -> int:
    """It crashes, and another process comes up at its address."""
    return await _gone(world, last, gently=False)


async def restarted(world: World, _: Random, last: Last) -> int:
    """It is told to end, and started again."""
    return await _gone(world, last, gently=True)


async def _gone(world: World, last: Last, *, gently: bool) -> int:
    server, before = world.engine.server, _missed(world)
    with world.outage("engine"):
        await asyncio.to_thread(server.stop if gently else server.kill)
        await last()
        felt = _missed(world) - before
        world.lives += 1
        server.launch()
        await asyncio.to_thread(server.wait_ready)
    return felt


def _missed(world: World) -> int:
    return world.answers.failed + world.kv_way.ended


async def frozen(world: World, _: Random, last: Last) -> int:
    """All of its processes stand still."""
    with world.outage("engine"):
        world.engine.signal(signal.SIGSTOP)
        await last()
        felt = world.answers.waiting + world.calling
        world.engine.signal(signal.SIGCONT)
        await asyncio.to_thread(world.engine.server.wait_ready)
    return felt


async def hung(world: World, _: Random, last: Last) -> int:
    """It answers, but takes no step: no request ends."""
    with world.outage("engine"):
        await world.engine.hang(world.api)
        await last()
        felt = world.answers.waiting + world.calling
        await world.engine.unhang(world.api)
    return felt


def answers(manner: Manner) -> Effect:
    """Return the fault of answers of that manner."""

    async def effect(world: World, _: Random, last: Last) -> int:
        before = world.answers.spoilt
        with world.outage("answers"):
            world.answers.manner = manner
            await last()
            world.answers.manner = Manner.HONEST
        return world.answers.spoilt - before

    return effect
