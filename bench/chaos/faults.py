"""Which effect each kind of fault has, and when it strikes."""

from __future__ import annotations

import asyncio
from functools import partial
from random import Random

from bench.chaos import effects, enginefaults, hostfaults, storefaults
from bench.chaos.effects import Effect
from bench.chaos.enginepath import Manner
from bench.chaos.schedule import Fault, Kind
from bench.chaos.world import World

EFFECTS: dict[Kind, Effect] = {
    Kind.DAEMON_KILLED: hostfaults.killed,
    Kind.DAEMON_FROZEN: hostfaults.frozen,
    Kind.REDIS_KILLED: storefaults.killed,
    Kind.REDIS_FROZEN: storefaults.frozen,
    Kind.REDIS_FLUSHED: storefaults.flushed,
    Kind.REDIS_FULL: storefaults.full,
    Kind.REDIS_FAILED_OVER: storefaults.failed_over,
    Kind.REDIS_DEMOTED: storefaults.demoted,
    Kind.REDIS_SET_BACK: storefaults.set_back,
    Kind.REDIS_SILENT: storefaults.silent,
    Kind.ENGINE_KILLED: enginefaults.killed,
    Kind.ENGINE_RESTARTED: enginefaults.restarted,
    Kind.ENGINE_FROZEN: enginefaults.frozen,
    Kind.ENGINE_HUNG: enginefaults.hung,
    Kind.ANSWERS_SILENT: enginefaults.answers(Manner.SILENT),
    Kind.ANSWERS_RESET: enginefaults.answers(Manner.RESET),
    Kind.ANSWERS_FAILING: enginefaults.answers(Manner.FAILING),
    Kind.ANSWERS_GARBAGE: enginefaults.answers(Manner.GARBAGE),
    Kind.ANSWERS_CUT: enginefaults.answers(Manner.CUT),
    Kind.ANSWERS_LYING: enginefaults.answers(Manner.LYING),
    Kind.KV_SILENT: effects.silent(lambda world: (world.kv_way, world.replay_way)),
    Kind.KV_CUT: effects.cut(lambda world: (world.kv_way, world.replay_way)),
    Kind.KV_LOST: effects.filtered(lambda world: world.kv_way, effects.losing),
    Kind.FEED_SILENT: effects.silent(lambda world: (world.feed_way,)),
    Kind.FEED_CUT: effects.cut(lambda world: (world.feed_way,)),
    Kind.FEED_LOST: effects.filtered(lambda world: world.feed_way, effects.losing),
    Kind.FEED_DOUBLED: effects.filtered(lambda world: world.feed_way, effects.doubling),
    Kind.FEED_FLOODED: effects.flooded,
    Kind.DISK_SLOW: hostfaults.disk_slow,
    Kind.DISK_FULL: hostfaults.disk_full,
    Kind.SHM_FULL: hostfaults.shm_full,
    Kind.CLOCK_FORWARD: hostfaults.clock(1),
    Kind.CLOCK_BACK: hostfaults.clock(-1),
}


async def strike(world: World, fault: Fault) -> int:
    """Let a fault happen when it is due, and heal it when it is over; return how often something felt it."""
    await asyncio.sleep(fault.at)
    async with world.turns[fault.kind.target]:
        return await EFFECTS[fault.kind](world, Random(fault.seed), partial(asyncio.sleep, fault.seconds))
