"""What a lease that is over keeps from happening: steps that would start, and requests that are about to leave."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from time import monotonic

import pytest

from scalesim_adapters.base import Revoked
from scalesim_adapters.http import Http, may_send
from scalesim_daemon.fleet.lease import Answer, Ask, Lease, Phase, Terms, Verb
from scalesim_daemon.fleet.lease_clock import now
from scalesim_daemon.fleet.lease_keeper import Keeper
from scalesim_daemon.fleet.lease_store import key_of
from scalesim_daemon.fleet.mishaps import Mishaps
from scalesim_daemon.records import Record
from scalesim_daemon.redis_client import open_client
from scalesim_daemon.settings import FleetSettings
from tests.daemon.live import until
from tests.daemon.stores import External, client
from tests.daemon.test_driver import LOAD, Engine, driving, until_idle

LEASE_SECONDS = 1.0


@pytest.mark.parametrize("answers", [[False], [True, False]])
def test_a_request_is_held_back_at_the_last_moment(answers: list[bool]) -> None:
    """Asked before its head leaves, and before its body does: a server takes no half of a request."""

    async def scene() -> None:
        came: asyncio.Queue[bytes] = asyncio.Queue()

        async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = b""
            with suppress(ConnectionError):
                while part := await reader.read(1 << 16):
                    request += part
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            came.put_nowait(request)

        server = await asyncio.start_server(hear, "127.0.0.1", 0)
        http = Http(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", "one", None, None)
        asked: Iterator[bool] = iter(answers)
        may_send.set(lambda: next(asked))
        with pytest.raises(Revoked):
            await http.send("POST", "/v1/completions", {"prompt": [1, 2]}, deadline=5)
        await http.close()
        assert next(asked, None) is None
        assert b"prompt" not in await came.get()
        server.close()
        await server.wait_closed()

    asyncio.run(scene())


def test_what_is_under_way_is_cut_off_before_the_lease_is_over() -> None:
    async def scene() -> None:
        store, engine = External(), Engine()
        await store.start()
        async with client(store.url) as redis, driving(engine) as (driver, results):
            woken = asyncio.Event()
            settings = FleetSettings(enabled=True, name="here", lease_seconds=LEASE_SECONDS)
            keeper = Keeper(redis, settings, {"engine": driver}, (), woken.set, Mishaps())
            driver.pursue([LOAD], [], announced=0)
            assert not driver.busy, "nobody acts without a lease"
            keeping = asyncio.create_task(keeper.run())
            while driver.why_not is not None:
                await woken.wait()
                woken.clear()
            driver.pursue([LOAD], [], announced=0)
            await engine.working.wait()
            await store.kill()
            killed = monotonic()
            assert (await results.get()).startswith("cancelled: the lease is over")
            assert engine.left and monotonic() - killed < LEASE_SECONDS
            await until_idle(driver)
            driver.pursue([LOAD], [], announced=0)
            assert not driver.busy
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)

    asyncio.run(scene())


def test_who_waits_is_put_in_the_place_of_who_ends() -> None:
    async def scene() -> None:
        store = External()
        await store.start()
        async with client(store.url) as redis, driving(Engine()) as (one, _), driving(Engine()) as (two, _):
            keepers = []
            for name, driver in (("here", one), ("there", two)):
                settings = FleetSettings(enabled=True, name=name, lease_seconds=2 * LEASE_SECONDS)
                keepers.append(Keeper(redis, settings, {"engine": driver}, (), lambda: None, Mishaps()))
            keeping = [asyncio.create_task(keeper.run()) for keeper in keepers[:1]]
            assert one.view.lease is not None and two.view.lease is not None
            lease = two.view.lease

            async def first_holds() -> bool:
                return one.may_act

            async def watching() -> bool:
                return lease.phase(now()) is Phase.WATCHES and two.why_not == "held by here"

            async def holding() -> bool:
                return two.may_act

            await until(first_holds)
            keeping.append(asyncio.create_task(keepers[1].run()))
            await until(watching)
            keeping[0].cancel()
            await asyncio.gather(keeping[0], return_exceptions=True)
            await keepers[0].close()
            given = monotonic()
            assert not one.may_act
            await until(holding)
            assert monotonic() - given < lease.terms.wait
            keeping[1].cancel()
            await asyncio.gather(keeping[1], return_exceptions=True)
        await store.stop()

    asyncio.run(scene())


def test_no_fault_ends_a_keeper_and_no_decision_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in keeping a lease costs the lease alone; what was done is written before the lease is given away."""

    async def scene() -> None:
        store, mishaps = External(), Mishaps()
        await store.start()
        async with client(store.url) as redis, driving(Engine()) as (driver, _):
            settings = FleetSettings(enabled=True, name="here", lease_seconds=LEASE_SECONDS)
            keeper = Keeper(redis, settings, {"engine": driver}, (), lambda: None, mishaps)
            with monkeypatch.context() as broken:
                broken.setattr(Lease, "answered", lambda *_: {}["a fault"])
                keeping = asyncio.create_task(keeper.run())

                async def failed_again() -> bool:
                    return mishaps.counts["fleet_faults"] >= 2

                await until(failed_again)
                assert not keeping.done()

            async def driven() -> bool:
                return driver.may_act

            await until(driven)
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            token = driver.view.lease.token if driver.view.lease is not None else None
            keeper.decided(Record(0.0, "engine", LOAD, "cancelled: stopping", 0.0, 0, token), {"key": "last"})
            await keeper.close()
            ((_, fields),) = await redis.xrange(key_of("engine", "decisions"))
            assert fields == {"record": '{"key": "last"}'}
            assert mishaps.counts["fleet_decisions_lost"] == 0
        await store.stop()

    asyncio.run(scene())


def test_what_is_done_goes_by_the_token_of_the_moment_in_which_it_was_started() -> None:
    async def scene() -> None:
        engine = Engine()
        engine.done.set()
        async with driving(engine) as (driver, _):
            lease = driver.view.lease = Lease("here/1", Terms.of(5.0))
            taken = Answer("here/1", 7, 4.0, 0.0, ready=True)
            lease.answered(Ask(Verb.LOOK, 0, now()), taken, now())
            driver.pursue([LOAD], [], announced=0)
            assert driver.busy
            lost = Answer("there/1", 8, 4.0, 0.0)
            lease.answered(Ask(Verb.RENEW, 7, now()), lost, now())
            assert lease.token is None
            await until_idle(driver)
            assert [record.token for record in driver.records] == [7]

    asyncio.run(scene())


def test_nothing_that_redis_does_ends_a_keeper() -> None:
    """A cluster of which nobody answers has errors of its own, and what a lease is may be written by anybody."""

    async def scene() -> None:
        store = External()
        await store.start()
        nobody = open_client("redis://127.0.0.1:9", cluster=True)
        async with client(store.url) as redis, driving(Engine()) as (one, _), driving(Engine()) as (two, _):
            await redis.hset(key_of("engine", "lease"), "owner", "a guest")
            keepers = []
            for driver, store_of in ((one, nobody), (two, redis)):
                settings = FleetSettings(enabled=True, name="here", lease_seconds=LEASE_SECONDS)
                keepers.append(Keeper(store_of, settings, {"engine": driver}, (), lambda: None, Mishaps()))
            step = Record(0.0, "engine", LOAD, "done", 0.0, 0, 1)
            for keeper in keepers:
                keeper.decided(step, {"engine": "engine"})
            keeping = [asyncio.create_task(keeper.run()) for keeper in keepers]

            async def away() -> bool:
                return all((driver.why_not or "").startswith("no lease:") for driver in (one, two))

            await until(away)
            assert not any(task.done() for task in keeping)
            await redis.delete(key_of("engine", "lease"))

            async def driven() -> bool:
                return two.may_act

            await until(driven)
            for task in keeping:
                task.cancel()
            ended = await asyncio.gather(*keeping, return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) for one in ended)
        await nobody.aclose()
        await store.stop()

    asyncio.run(scene())
