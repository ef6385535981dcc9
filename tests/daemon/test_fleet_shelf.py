"""What is shared in a real Redis may be written by anybody: nonsense is written over, and ends nobody."""

from __future__ import annotations

import asyncio

import msgspec

from scalesim_daemon.fleet.shelf import Shelf
from scalesim_daemon.fleet.words import Head, Word
from tests.daemon.fleet_rig import store
from tests.daemon.stores import client


def test_nonsense_is_written_over() -> None:
    async def scene() -> None:
        async with store() as server, client(server.url) as redis:
            shelf = Shelf(server.url)
            await redis.hset("ss:{s}:owners", "source", "nonsense")
            owner = await shelf.claim("s", "source", 1, 0, "me")
            assert (owner.incarnation, owner.number, owner.daemon) == (1, 0, "me")
            await redis.hset("ss:{s}:owners", "source", "nonsense")
            word = Word(Head("step", 0.0, 1.0, 1.0, 1.0, tells_calls=False, whole=True))
            now = msgspec.structs.replace(owner, number=1)
            assert await shelf.say("s", "source", owner, now, word) is None
            assert (await shelf.claim("s", "source", 1, owner.fence, "me")).fence > owner.fence
            await redis.hset("ss:{s}:placed", b"\xff", b"\xff")
            assert await shelf.placed("s") == {"�": "�"}
            await shelf.close()

    asyncio.run(scene())
