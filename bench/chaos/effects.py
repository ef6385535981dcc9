"""What all faults have in common, and those of ways: of KV events and of the feed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random

from bench.chaos.flood import Flood
from bench.chaos.paths import Filter, Stream, Way
from bench.chaos.world import World

CUT_SECONDS = 0.7
LOSS = 0.6

Last = Callable[[], Awaitable[None]]
"""Returns when the fault has lasted long enough."""
Effect = Callable[[World, Random, Last], Awaitable[int]]
"""Lets a fault begin, waits until it has lasted, and heals it. Returns how often something felt it: calls, commands,
messages, connections, or looks at the clock."""


async def silenced(ways: tuple[Stream, ...], last: Last) -> int:
    """Let nothing through, without a word."""
    before = _spoilt(ways)
    for way in ways:
        way.go(Way.SILENT)
    await last()
    for way in ways:
        way.go(Way.OPEN)
    return _spoilt(ways) - before


def silent(ways: Callable[[World], tuple[Stream, ...]]) -> Effect:
    """Return the fault of half-open connections."""
    return lambda world, _, last: silenced(ways(world), last)


def cut(ways: Callable[[World], tuple[Stream, ...]]) -> Effect:
    """Return the fault of connections that are cut off, again and again."""

    async def effect(world: World, _: Random, last: Last) -> int:
        before = _spoilt(ways(world))

        async def cutting() -> None:
            while True:
                for way in ways(world):
                    way.cut()
                await asyncio.sleep(CUT_SECONDS)

        task = asyncio.create_task(cutting())
        await last()
        task.cancel()
        return _spoilt(ways(world)) - before

    return effect


def filtered(way_of: Callable[[World], Stream], make: Callable[[Random], Filter]) -> Effect:
    """Return the fault of messages that don't come as they were sent."""

    async def effect(world: World, random: Random, last: Last) -> int:
        way = way_of(world)
        before, way.filter = way.spoilt, make(random)
        await last()
        way.filter = None
        return way.spoilt - before

    return effect


def losing(random: Random) -> Filter:
    """Return what loses most messages."""
    return lambda message: () if random.random() < LOSS else (message,)


def doubling(random: Random) -> Filter:
    """Return what passes each message on twice, or together with one from before, or after the one that follows it."""
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


async def flooded(world: World, random: Random, last: Last) -> int:
    """Another simulation never rests."""
    flood = Flood(world.daemon.feed, random)
    flooding = asyncio.create_task(flood.run())
    await last()
    flooding.cancel()
    await asyncio.wait([flooding])
    return flood.sent


def _spoilt(ways: tuple[Stream, ...]) -> int:
    return sum(way.spoilt for way in ways)
