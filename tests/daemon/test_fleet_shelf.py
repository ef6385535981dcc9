"""What is shared in a real Redis may be written by anybody: nonsense is written over, and ends nobody."""

from __future__ import annotations

import asyncio

import msgspec

from scalesim_daemon.fleet.shelf import NOTHING_YET, Shelf
from scalesim_daemon.fleet.words import Head, Word, read_names
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


def test_a_read_is_one_command_and_notices_what_was_lost() -> None:
    """Also that everything was, on any Redis that has streams."""

    async def scene() -> None:
        async with store() as server, client(server.url) as redis:
            shelf = Shelf(server.url)

            async def read(since: bytes) -> tuple[list[str], bool]:
                found, complete = await shelf.changes("s", since)
                return [read_names(change[b"p"])["a"] for _, change in found], complete

            assert await shelf.last_change("s") == NOTHING_YET
            assert await read(NOTHING_YET) == ([], True)
            await shelf.place("s", {"a": "one"})
            assert (await read(NOTHING_YET))[1] is False, "others may have been before it"
            first = await shelf.last_change("s")
            assert await read(first) == ([], True)
            for engine in ("two", "three"):
                await shelf.place("s", {"a": engine})
            await redis.config_resetstat()
            assert await read(first) == (["two", "three"], True)
            told = await redis.info("commandstats")
            assert {name for name in told if "config" not in name} == {"cmdstat_xrange"}
            await redis.xtrim("ss:{s}:changes", maxlen=2, approximate=False)
            assert (await read(first))[1] is False
            last = await shelf.last_change("s")
            await redis.flushall()
            assert (await read(last))[1] is False
            await shelf.place("s", {"a": "four"})
            assert (await read(last))[1] is False
            await shelf.close()

    asyncio.run(scene())
