"""Keeps this daemon's leases: asks Redis in time, and cuts off what is under way before a lease is over."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Collection, Mapping
from typing import Any

import structlog
from redis.asyncio import Redis, RedisCluster

from scalesim_daemon.driver import Driver
from scalesim_daemon.fleet.lease import Ask, Lease, Phase, Terms
from scalesim_daemon.fleet.lease_clock import now
from scalesim_daemon.fleet.lease_log import DecisionLog
from scalesim_daemon.fleet.lease_store import LeaseStore
from scalesim_daemon.fleet.mishaps import Mishaps
from scalesim_daemon.records import Record
from scalesim_daemon.redis_client import AWAY, heed
from scalesim_daemon.settings import FleetSettings

# How often it is looked whether a lease is over while something is under way.
GUARD_SECONDS = 0.05
DRAINED_SECONDS = 0.02

log = structlog.get_logger(__name__)


class Keeper:
    """One daemon's leases of all its engines, which it gives to their views. `client` decodes responses and doesn't
    retry; `standby` names the engines that are other daemons' as long as these are there."""

    def __init__(
        self,
        client: Redis | RedisCluster,
        settings: FleetSettings,
        drivers: Mapping[str, Driver],
        standby: Collection[str],
        wake: Callable[[], None],
        mishaps: Mishaps,
    ) -> None:
        # Two daemons of one name, or two runs of one, never share a lease.
        self.me = f"{settings.name}/{secrets.token_hex(4)}"
        self._terms = Terms.of(settings.lease_seconds)
        self._store = LeaseStore(client, self.me, self._terms)
        self._mishaps = mishaps
        self._log = DecisionLog(self._store, mishaps)
        self._wake = wake
        self._kept = {
            name: (driver, Lease(self.me, self._terms, standby=name in standby))
            for name, driver in drivers.items()
        }
        for driver, lease in self._kept.values():
            driver.view.lease = lease

    def decided(self, record: Record, told: Mapping[str, Any]) -> None:
        """Have what was done on an engine written under its token."""
        if record.token is not None:
            self._log.note(record.engine, record.token, told)

    async def run(self) -> None:
        """Keep all leases until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._log.run())
            group.create_task(self._guard())
            for name in self._kept:
                group.create_task(self._keep(name))

    async def close(self) -> None:
        """Write what was done last, and put others in our place. Nothing may be under way any more."""
        try:
            async with asyncio.timeout(self._terms.every):
                await self._log.flush()
        except (*AWAY, TimeoutError):
            log.warning("what was done last isn't in Redis", store="away")
        asks = {name: lease.hand_over(now()) for name, (_, lease) in self._kept.items()}
        await asyncio.gather(*(self._put(name, ask) for name, ask in asks.items() if ask is not None))

    async def _keep(self, name: str) -> None:
        while True:
            heed()
            if not await self._mishaps.survived("keeping a lease", self._turn(name)):
                # What isn't renewed ends in time.
                await asyncio.sleep(self._terms.every)

    async def _turn(self, name: str) -> None:
        """Ask what is due, or wait until something is."""
        driver, lease = self._kept[name]
        ask = lease.hand_over(now()) if lease.leaves and not driver.busy else lease.ask(now())
        if ask is not None:
            await self._put(name, ask)
            return
        wait = lease.ask_at - now()
        await asyncio.sleep(max(0.0, min(wait, DRAINED_SECONDS) if lease.leaves else wait))

    async def _put(self, name: str, ask: Ask) -> None:
        driver, lease = self._kept[name]
        before = lease.phase(now())
        try:
            async with asyncio.timeout(self._terms.every):
                answer = await self._store.put(name, ask, near=not lease.standby)
        except (
            *AWAY,
            TimeoutError,
            ValueError,
            TypeError,
        ) as error:  # the last two: what no daemon has written
            lease.failed(ask, f"Redis does not answer ({str(error) or type(error).__name__})", now())
        else:
            lease.answered(ask, answer, now())
        phase = lease.phase(now())
        if phase is not before:
            if phase is Phase.HOLDS:
                driver.view.quiet.taken_over()
            self._wake()
        self._cut(driver)

    async def _guard(self) -> None:
        """Should this fail the daemon ends: nothing else cuts off in time."""
        while True:
            ends = [lease.deadline - now() for driver, lease in self._kept.values() if driver.busy]
            await asyncio.sleep(max(0.001, min([GUARD_SECONDS, *ends])))
            for driver, _ in self._kept.values():
                self._cut(driver)

    def _cut(self, driver: Driver) -> None:
        if driver.busy and not driver.may_act:
            driver.let_go(f"the lease is over: {driver.why_not}")
