"""What several daemons know together: told, heard, and who is there.

Where Redis is away each goes on with what it knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from secrets import token_hex
from time import monotonic
from typing import TYPE_CHECKING

import structlog

from scalesim_daemon.fleet.contents import Contents
from scalesim_daemon.fleet.hearing import Hearing
from scalesim_daemon.fleet.homes import host_of
from scalesim_daemon.fleet.mishaps import Mishaps
from scalesim_daemon.fleet.placement import GONE_SECONDS, Host
from scalesim_daemon.fleet.population import SharedPopulation
from scalesim_daemon.fleet.shelf import Shelf
from scalesim_daemon.fleet.telling import Telling
from scalesim_daemon.fleet.words import Engine
from scalesim_daemon.population import Changes
from scalesim_daemon.redis_client import AWAY, heed, pause
from scalesim_daemon.setting_values import redacted

if TYPE_CHECKING:
    from scalesim_daemon.loop import Sidecar

BEAT_SECONDS = 1.0
DEAD_SECONDS = 5.0
FORGOTTEN_SECONDS = 3600.0
LOOK_BEATS = 5

log = structlog.get_logger(__name__)


class Shared:
    """One daemon's part. `me` is its name, and a number for each of its runs: what an earlier run told is void."""

    def __init__(
        self, sidecar: Sidecar, population: SharedPopulation, url: str, *, cluster: bool = False
    ) -> None:
        self.me = f"{sidecar.settings.fleet.name}#{token_hex(4)}"
        self.connected: bool | None = None
        """None until Redis was asked for the first time."""
        self._sidecar = sidecar
        # Whoever takes over from a dead daemon does so before its engine counts as gone.
        takeover = 2 * sidecar.settings.fleet.lease_seconds
        sidecar.homes.placement.gone_seconds = max(GONE_SECONDS, takeover)
        self._population = population
        population.daemon, population.here = self.me, self._here
        # A client of a cluster that several tasks use at a time fails oddly when a server goes away: each has its own.
        self._mishaps = Mishaps(sidecar.counts)
        self._shelves = [Shelf(url, cluster=cluster, mishaps=self._mishaps) for _ in range(5)]
        self._beating, self._listening, telling, hearing, bringing = self._shelves
        self._telling = Telling(telling, self.me, population, self._doubt, self._unsaid, self._mishaps)
        self._hearing = Hearing(
            hearing, self.me, population, sidecar.homes, self._telling, self, self._mishaps
        )
        self._contents = Contents(bringing, population)
        self._beats: dict[str, bytes] = {}
        self._silent: dict[str, float] = {}
        self._looked_at = monotonic()
        self._engines: Mapping[str, Engine] = {}
        self._failures = 0
        self._driven: frozenset[str] = frozenset()

    # What the loop says and asks

    def note(self, changes: Changes) -> None:
        """Tell what has changed of what is heard here."""
        self._telling.note(changes)

    def tell_placed(self, moved: Mapping[str, str | None]) -> None:
        """Tell where agents live from now on."""
        self._telling.placed(moved)
        for key in moved:
            self._population.hold_where_needed(key)

    def tell_call(self, key: str, engine: str) -> None:
        """Tell that an engine has served an agent."""
        self._telling.call_seen(key, engine)

    def drives(self, engine: str) -> bool:
        """Whether this daemon drives an engine."""
        driver = self._sidecar.drivers.get(engine)
        return driver is not None and driver.may_act

    def is_own(self, key: str) -> bool:
        """Whether a source here speaks of an agent."""
        return bool(self._population.own_sources(key))

    def has_spoken_for(self, simulation: str) -> bool:
        """Whether a source of the simulation was heard here, just now."""
        return simulation in self._telling.simulations()

    def speaks_for(self, key: str) -> bool:
        """Whether a source of the agent's simulation is heard here."""
        return self._population.speaks_for(key.partition("/")[0])

    def writes(self, key: str) -> bool:
        """Whether an agent's record is this daemon's to write: it is heard here, or gone altogether."""
        return self.is_own(key) or (key not in self._population.agents and self.speaks_for(key))

    def decides(self, key: str) -> bool:
        """Whether it is this daemon's to say where an agent lives: of all that hear its simulation one does, the latest
        that hears the simulation itself. While Redis is away each does for who is heard there."""
        simulation = key.partition("/")[0]
        own = self._telling.owners(simulation)
        if self.connected is False:
            return bool(own)
        if not own or None in own or not self._hearing.loaded(simulation):
            return False
        others = [known.owner for known in self._hearing.known(simulation)]
        last = max(
            (owner.incarnation > 0, owner.fence, owner.daemon)
            for owner in (*own, *others)
            if owner is not None
        )
        return last[2] == self.me

    def knows(self, simulation: str) -> bool:
        """Whether a simulation has been read."""
        return self._hearing.loaded(simulation)

    def hosts(self) -> dict[str, Host]:
        """Return the engines as their daemons see them."""
        return {
            name: Host(
                one.alive and not self.dead(one.daemon),
                None if one.models is None else frozenset(one.models),
                one.room,
            )
            for name, one in self._engines.items()
        }

    def url_of(self, engine: str) -> str | None:
        """Return where an engine is reached, None where that isn't known."""
        known = self._engines.get(engine)
        return None if known is None else known.url

    # What the reader asks

    def dead(self, daemon: str) -> bool:
        """Whether a daemon hasn't been heard for long, while Redis was."""
        return daemon not in self._beats or self._silent.get(daemon, 0.0) >= DEAD_SECONDS

    def healed(self, source: str) -> bool:
        """Whether all that a source says is known here."""
        known = self._sidecar.gate.streams().get(source)
        return known is not None and not known[1]

    def lost(self, source: str) -> None:
        """A source that was heard here speaks through another daemon."""
        self._telling.forget(source)
        closed = self._sidecar.gate.forget(source)
        if closed is not None:
            self._population.apply([closed], monotonic())
        self.wake()

    def wake(self) -> None:
        """Something has changed."""
        self._sidecar.wake()
        self._contents.look()

    async def look(self, shelf: Shelf) -> None:
        """Look which daemons are there, and how engines are. What counts is time in which Redis answered."""
        beats = await shelf.beats()
        now = monotonic()
        passed, self._looked_at = min(now - self._looked_at, 2 * BEAT_SECONDS), now
        back = False
        for daemon in self._beats.keys() | beats.keys():
            beat = beats.get(daemon)
            if beat is None or beat == self._beats.get(daemon):
                self._silent[daemon] = self._silent.get(daemon, 0.0) + passed
            else:
                self._beats[daemon] = beat
                back |= self._silent.pop(daemon, 0.0) >= DEAD_SECONDS
            if beat is not None and self.dead(daemon):
                # Who starts later has no need to find out. One that only stood still is there again with its next beat.
                await shelf.bury(
                    daemon, [name for name, one in self._engines.items() if one.daemon == daemon]
                )
            elif self._silent.get(daemon, 0.0) >= FORGOTTEN_SECONDS:
                del self._beats[daemon], self._silent[daemon]
        self._engines = await shelf.engines()
        if back:
            self._hearing.doubt_all()

    # Running

    async def run(self) -> None:
        """Share until cancelled."""
        try:
            while True:
                try:
                    await self._share()
                except* AWAY as errors:
                    if not self._failures:
                        log.warning(
                            "Redis is away: other daemons aren't heard", error=str(errors.exceptions[0])
                        )
                    self.connected = False
                    self._failures += 1
                except* Exception as faults:  # noqa: BLE001  # nobody foresaw it
                    self._mishaps.failed("sharing with other daemons", faults.exceptions[0])
                    self.connected = False
                    self._failures += 1
                await asyncio.sleep(pause(self._failures))
        finally:
            for shelf in self._shelves:
                await shelf.close()

    async def _share(self) -> None:
        async with asyncio.TaskGroup() as group:
            await self._beat(0)
            self._telling.restate()
            self._hearing.doubt_all()
            group.create_task(self._listen())
            group.create_task(self._telling.run())
            group.create_task(self._hearing.run())
            group.create_task(self._contents.run())
            group.create_task(self._beat_forever())

    async def _listen(self) -> None:
        async with aclosing(self._listening.heard()) as rings:
            # What was said before the bell could be heard.
            await anext(rings)
            await self._look_for_simulations(self._listening)
            self._hearing.ring_all()
            async for words in rings:
                match words:
                    case ["changed", *simulation]:
                        self._hearing.ring("\n".join(simulation))
                    case ["wanted", daemon, *hashes]:
                        self._contents.wanted(daemon, hashes)
                    case ["brought", *_]:
                        self._contents.look()

    async def _beat_forever(self) -> None:
        count = 0
        while True:
            heed()
            await asyncio.sleep(BEAT_SECONDS)
            count += 1
            await self._beat(count)
            self._failures = 0
            if count % LOOK_BEATS == 0:
                await self._look_for_simulations(self._beating)
                self._hearing.ring_all()
                self._telling.restate()

    async def _beat(self, count: int) -> None:
        await self._beating.beat(self.me, count, self._own_engines())
        await self.look(self._beating)
        self.connected = True
        self.hold_where_driven()
        self._hearing.look()

    def hold_where_driven(self) -> None:
        """The memory of the agents of an engine is needed by who drives it."""
        engines = self._sidecar.drivers
        driven = frozenset(name for name in engines if self.drives(name) or self._may_drive_again(name))
        other, self._driven = driven ^ self._driven, driven
        if other:
            for key in [key for key, home in self._sidecar.homes.placement.homes.items() if home in other]:
                self._population.hold_where_needed(key)

    async def _look_for_simulations(self, shelf: Shelf) -> None:
        await shelf.spoken_for(self._telling.simulations())
        simulations = await shelf.simulations()
        self._hearing.keep(simulations)
        for simulation in simulations:
            if not self._hearing.loaded(simulation):
                self._hearing.doubt(simulation)

    def _own_engines(self) -> dict[str, Engine]:
        engines = {}
        urls = {engine.name: engine.url for engine in self._sidecar.settings.engines}
        links, _ = self._sidecar.library.inventory()
        for name, driver in self._sidecar.drivers.items():
            if self.drives(name):
                view = driver.view
                host = host_of(view)
                models = None if host.models is None else sorted(host.models - links.keys())
                engines[name] = Engine(self.me, redacted(urls[name]), host.alive, models, host.room)
        return engines

    def _here(self, key: str) -> bool:
        home = self._sidecar.homes.home(key)
        return home is not None and (self.drives(home) or self._may_drive_again(home))

    def _may_drive_again(self, engine: str) -> bool:
        """Whether this daemon drove an engine of late and no other does: Redis's hiccup costs no memory."""
        driver = self._sidecar.drivers.get(engine)
        if driver is None or engine not in self._driven:
            return False
        return driver.view.lease is None or not driver.view.lease.elsewhere

    def _doubt(self, simulation: str) -> None:
        self._hearing.doubt(simulation)

    def _unsaid(self, key: str) -> None:
        if self._sidecar.mirror is not None and key not in self._population.agents:
            self._sidecar.mirror.mark(key, None)
