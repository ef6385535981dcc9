"""Two daemons beside one engine: the engine never hears from both, and never for long from none."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from time import monotonic

import pytest

from tests.fleet.rig import LEASE_SECONDS, fleet

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(400)]


def test_a_killed_daemon_is_followed_within_two_lease_times(tmp_path: Path) -> None:
    async def scene() -> None:
        async with fleet(tmp_path, "a", "b") as known:
            await known.acts("a")
            await known.started("b")
            assert (await known.phase("b", "watches", "a"))["why_not"] == "held by a"
            await asyncio.to_thread(known.daemons["a"].kill)
            killed = monotonic()
            assert await known.acts("b") - killed <= known.two_leases
            assert known.turns() == ["a", "b"]
            # Who comes back finds the engine taken.
            await known.started("a")
            await known.phase("a", "watches", "b")
            await known.acts("b", monotonic())
            assert known.turns() == ["a", "b"]

    asyncio.run(scene())


def test_a_daemon_that_stood_still_sends_nothing_when_it_goes_on(tmp_path: Path) -> None:
    async def scene() -> None:
        async with fleet(tmp_path, "a", "b") as known:
            await known.started("b")
            await known.acts("a")
            for _ in range(3):
                known.daemons["a"].signal(signal.SIGSTOP)
                stopped = monotonic()
                taken = await known.acts("b", stopped)
                assert taken - stopped <= known.two_leases
                known.daemons["a"].signal(signal.SIGCONT)
                await known.phase("a", "watches", "b")
                await known.acts("b", monotonic())
                late = [act for act in known.tap.of("a") if act.at > stopped + LEASE_SECONDS]
                assert late == []
                # The engine goes back to a.
                await asyncio.to_thread(known.daemons["b"].stop)
                await known.acts("a", monotonic())
                await known.started("b")
            assert known.turns() == ["a", "b", "a", "b", "a", "b", "a"]

    asyncio.run(scene())


def test_a_daemon_that_ends_in_good_order_hands_over_without_a_wait(tmp_path: Path) -> None:
    async def scene() -> None:
        async with fleet(tmp_path, "a", "b") as known:
            await known.started("b")
            await known.phase("b", "watches")
            await known.acts("a", monotonic())
            await asyncio.to_thread(known.daemons["a"].stop)
            # From the last act: what a daemon does to end takes its time.
            assert await known.acts("b") - known.tap.of("a")[-1].at <= known.two_leases
            assert (await known.lease("b"))["phase"] == "holds"
            assert known.turns() == ["a", "b"]

    asyncio.run(scene())


def test_without_redis_nobody_acts_and_the_engine_serves(tmp_path: Path) -> None:
    async def scene() -> None:
        async with fleet(tmp_path, "a", "b") as known:
            await known.started("b")
            await known.acts("a")
            await known.store.kill()
            killed = monotonic()
            away = await known.phase("a", "away")
            assert "Redis does not answer" in away["why_not"]
            assert known.tap.acts[-1].at - killed <= LEASE_SECONDS + known.held_up
            silent = monotonic()
            await asyncio.sleep(LEASE_SECONDS)
            assert [act for act in known.tap.acts if act.at > silent] == []
            # It comes back with nothing: who held the engine takes it anew.
            await known.store.back()
            back = monotonic()
            assert await known.acts("a", back) - back <= known.two_leases
            assert known.turns() == ["a"]

    asyncio.run(scene())


def test_a_daemon_that_is_cut_off_from_redis_stops_before_another_starts(tmp_path: Path) -> None:
    async def scene() -> None:
        async with fleet(tmp_path, "a", "b") as known:
            await known.started("b")
            await known.acts("a", monotonic())
            known.ways["a"].cut = True
            cut = monotonic()
            assert await known.acts("b", cut) - cut <= known.two_leases
            assert "Redis does not answer" in (await known.phase("a", "away"))["why_not"]
            assert known.tap.of("a")[-1].at - cut <= LEASE_SECONDS + known.held_up
            known.ways["a"].cut = False
            await known.phase("a", "watches", "b")
            await known.acts("b", monotonic())
            assert known.turns() == ["a", "b"]

    asyncio.run(scene())


def test_a_standby_gives_the_engine_back(tmp_path: Path) -> None:
    async def scene() -> None:
        async with fleet(tmp_path, "s", "a", s=True) as known:
            await known.acts("s")
            await known.started("a")
            await known.acts("a")
            await known.phase("s", "watches", "a")
            assert known.turns() == ["s", "a"]
            await asyncio.to_thread(known.daemons["a"].kill)
            killed = monotonic()
            assert await known.acts("s", killed) - killed <= known.two_leases

    asyncio.run(scene())
