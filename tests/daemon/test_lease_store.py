"""The lease's scripts on a real Valkey: they do what the simulated Redis does in which the protocol is checked."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from scalesim_daemon.fleet.lease import Answer, Ask, Terms, Verb
from scalesim_daemon.fleet.lease_log import DecisionLog
from scalesim_daemon.fleet.lease_store import LeaseStore, key_of
from scalesim_daemon.fleet.mishaps import Mishaps
from tests.daemon.lease_world import SimRedis
from tests.daemon.live import until
from tests.daemon.stores import External, client

TERMS = Terms.of(5.0)
# Who asks, what, under which of the tokens that were given so far, and whether as a standby; "lose" and "forget" are
# the lease's loss, and that of everything.
STORIES: dict[str, list[tuple[Any, ...]]] = {
    "taken once": [("a", Verb.TAKE, 0), ("b", Verb.TAKE, 0), ("b", Verb.LOOK, 1), ("a", Verb.RENEW, 1)],
    "a look takes nothing": [("a", Verb.LOOK, 0), ("a", Verb.TAKE, 0), ("a", Verb.LOOK, 1)],
    "who only hears takes nothing, and waits for nothing": [
        ("a", Verb.HEAR, 0),
        ("s", Verb.TAKE, 0, False),
        ("a", Verb.HEAR, 1),
        ("s", Verb.RENEW, 1, False),
        ("s", Verb.HEAR, 1, False),
        ("s", Verb.HAND_OVER, 1, False),
    ],
    "taken anew": [("a", Verb.TAKE, 0), ("a", Verb.TAKE, 1), ("a", Verb.RENEW, 1), ("a", Verb.RENEW, 2)],
    "a renewal takes nothing": [("a", Verb.TAKE, 0), "lose", ("a", Verb.RENEW, 1), ("b", Verb.TAKE, 1)],
    "all is lost": [("a", Verb.TAKE, 0), "forget", ("a", Verb.RENEW, 1), ("b", Verb.TAKE, 1)],
    "handed over": [
        ("a", Verb.TAKE, 0),
        ("b", Verb.LOOK, 1),
        ("a", Verb.HAND_OVER, 1),
        ("a", Verb.HAND_OVER, 1),
        ("c", Verb.TAKE, 1),
        ("b", Verb.LOOK, 1),
        ("b", Verb.LOOK, 2),
        ("b", Verb.RENEW, 2),
    ],
    "handed over to nobody": [("a", Verb.TAKE, 0), ("a", Verb.HAND_OVER, 1), ("b", Verb.LOOK, 1)],
    "given back": [
        ("s", Verb.TAKE, 0, False),
        ("t", Verb.LOOK, 1, False),
        ("s", Verb.RENEW, 1, False),
        ("a", Verb.LOOK, 1),
        ("t", Verb.LOOK, 1, False),
        ("s", Verb.RENEW, 1, False),
        ("s", Verb.HAND_OVER, 1, False),
        ("a", Verb.TAKE, 1),
    ],
}


def on_valkey(body: Any) -> None:
    async def play() -> None:
        server = External()
        await server.start()
        try:
            async with client(server.url) as redis:
                await body(redis)
        finally:
            await server.stop()

    asyncio.run(play())


async def tell(redis: Redis, story: list[Any]) -> None:
    """Put the same questions to both, and compare their answers; tokens by the order in which they were given."""
    sim, given, given_sim = SimRedis(TERMS.ttl), [0], [0]
    await redis.flushall()
    for step in story:
        if step == "lose":
            await redis.delete(key_of("e", "lease"))
            sim.evict()
            continue
        if step == "forget":
            await redis.flushall()
            sim.flush()
            continue
        me, verb, token, near = *step, *([True] if len(step) == 3 else [])
        store = LeaseStore(redis, me, TERMS)
        answer = await store.put("e", Ask(verb, given[token], 0.0), near=near)
        seconds, micros = await redis.time()
        expected = sim.put(me, Ask(verb, given_sim[token], 0.0), near, seconds + micros / 1e6)
        for one, known in ((answer, given), (expected, given_sim)):
            if one.token > known[-1]:
                known.append(one.token)
        assert given.index(answer.token) == given_sim.index(expected.token), (story, step)
        assert plain(answer) == plain(expected), (story, step)
        assert answer.left == pytest.approx(max(0.0, expected.left), abs=0.5)
        assert answer.since == pytest.approx(expected.since, abs=0.5)


def plain(answer: Answer) -> tuple[Any, ...]:
    return answer.holder, answer.ready, answer.wanted


def test_scripts_and_simulation_are_of_one_mind() -> None:
    async def body(redis: Redis) -> None:
        for story in STORIES.values():
            await tell(redis, story)

    on_valkey(body)


def test_tokens_grow_whatever_redis_has_lost() -> None:
    async def body(redis: Redis) -> None:
        first = await LeaseStore(redis, "a", TERMS).put("e", Ask(Verb.TAKE, 0, 0.0))
        await redis.flushall()

        async def later() -> bool:
            seconds, micros = await redis.time()
            return seconds * 1000 + micros // 1000 > first.token

        await until(later)
        unaware = await LeaseStore(redis, "b", TERMS).put("e", Ask(Verb.TAKE, 0, 0.0))
        assert unaware.token > first.token
        await redis.flushall()
        ahead = unaware.token + 10**9
        aware = await LeaseStore(redis, "c", TERMS).put("e", Ask(Verb.TAKE, ahead, 0.0))
        assert aware.token == ahead + 1

    on_valkey(body)


def test_a_lease_expires_and_a_renewal_restores_the_token() -> None:
    async def body(redis: Redis) -> None:
        store = LeaseStore(redis, "a", TERMS)
        taken = await store.put("e", Ask(Verb.TAKE, 0, 0.0))
        assert 0 < await redis.pttl(key_of("e", "lease")) <= 1000 * TERMS.ttl
        await redis.delete(key_of("e", "token"))
        await redis.pexpire(key_of("e", "lease"), 10)
        await store.put("e", Ask(Verb.RENEW, taken.token, 0.0))
        assert await redis.get(key_of("e", "token")) == str(taken.token)
        assert await redis.pttl(key_of("e", "lease")) > 1000
        await LeaseStore(redis, "b", TERMS).put("e", Ask(Verb.LOOK, 0, 0.0))
        # Whoever waits asks every fifth of a lease time, and counts as waiting until half as long after.
        assert 0 < await redis.pttl(key_of("e", "next")) <= 1500 * TERMS.every

    on_valkey(body)


def test_a_question_brings_its_script_along_where_redis_lacks_it_alone() -> None:
    async def body(redis: Redis) -> None:
        store = LeaseStore(redis, "a", TERMS)
        token = (await store.put("e", Ask(Verb.TAKE, 0, 0.0))).token

        async def renewals(count: int) -> int:
            """Return how many bytes they are."""
            before = int((await redis.info())["total_net_input_bytes"])
            for _ in range(count):
                assert (await store.put("e", Ask(Verb.RENEW, token, 0.0))).token == token
            return int((await redis.info())["total_net_input_bytes"]) - before

        await renewals(1)
        assert await renewals(10) < 10 * 300
        await redis.script_flush()
        assert await renewals(2) > 1000

    on_valkey(body)


def test_who_has_been_followed_writes_no_more() -> None:
    async def body(redis: Redis) -> None:
        old, new = LeaseStore(redis, "a", TERMS), LeaseStore(redis, "b", TERMS)
        before = await old.put("e", Ask(Verb.TAKE, 0, 0.0))
        assert await old.decided("e", before.token, [{"key": "sim/rosa"}, {"key": "é"}])
        await redis.delete(key_of("e", "lease"))
        after = await new.put("e", Ask(Verb.TAKE, before.token, 0.0))
        assert not await old.decided("e", before.token, [{"key": "late"}])
        assert await new.write("e", after.token, [("HSET", key_of("e", "residency"), "sim/rosa", 5)])
        assert not await old.write("e", before.token, [("HSET", key_of("e", "residency"), "sim/rosa", 0)])
        assert await redis.hgetall(key_of("e", "residency")) == {"sim/rosa": "5"}
        assert [fields for _, fields in await redis.xrange(key_of("e", "decisions"))] == [
            {"record": '{"key": "sim/rosa"}'},
            {"record": '{"key": "\\u00e9"}'},
        ]
        # Who writes under a token that Redis has lost brings it back.
        await redis.flushall()
        assert await new.write("e", after.token, [])
        assert not await old.write("e", before.token, [])

    on_valkey(body)


def test_what_was_done_is_written_in_order_and_under_its_token() -> None:
    async def body(redis: Redis) -> None:
        store = LeaseStore(redis, "a", TERMS)
        before = await store.put("e", Ask(Verb.TAKE, 0, 0.0))
        after = await store.put("e", Ask(Verb.TAKE, 0, 0.0))
        log = DecisionLog(store, Mishaps())
        for token, key in ((after.token, "one"), (before.token, "late"), (after.token, "two")):
            log.note("e", token, {"key": key})
        writing = asyncio.create_task(log.run())

        async def written() -> bool:
            return await redis.xlen(key_of("e", "decisions")) == 2

        await until(written)
        records = [fields["record"] for _, fields in await redis.xrange(key_of("e", "decisions"))]
        assert records == ['{"key": "one"}', '{"key": "two"}']
        writing.cancel()

    on_valkey(body)
