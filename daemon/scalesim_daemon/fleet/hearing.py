"""What other daemons tell, taken in: change by change, and whole where changes were missed."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Protocol

import msgspec
import structlog

from scalesim_daemon.fleet.homes import Homes
from scalesim_daemon.fleet.mishaps import Mishaps
from scalesim_daemon.fleet.population import SharedPopulation
from scalesim_daemon.fleet.shelf import PAGE, Change, Shelf, Spoken
from scalesim_daemon.fleet.telling import Telling
from scalesim_daemon.fleet.words import Owner, Told, Word, read_names, read_word
from scalesim_daemon.gate import Stream
from scalesim_daemon.redis_client import heed

# How many agents are taken in before others on this loop have their turn.
TURN_AGENTS = 200
MISSING_LOOKS = 5
# What is told within so long is read together: each read costs Redis as much, whatever it brings.
READ_SECONDS = 0.02

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Known:
    """A source that another daemon speaks for, by the daemon's last word. It is `partial` while that daemon is still
    telling all of it, and `missing` for so many looks at Redis."""

    stream: Stream
    owner: Owner
    partial: bool = False
    missing: int = 0


class Watch(Protocol):
    """What else a reader has to know, and to say."""

    async def look(self, shelf: Shelf) -> None:
        """Look which daemons are there."""

    def dead(self, daemon: str) -> bool:
        """Whether a daemon is gone."""
        ...

    def healed(self, source: str) -> bool:
        """Whether all that a source says is known here."""
        ...

    def lost(self, source: str) -> None:
        """A source that was heard here speaks through another daemon."""

    def wake(self) -> None:
        """Something has changed."""


class Hearing:
    """Reads. The simulations that are `stale` are read whole, those that are `rung` for as far as they have changed."""

    def __init__(
        self,
        shelf: Shelf,
        me: str,
        population: SharedPopulation,
        homes: Homes,
        telling: Telling,
        watch: Watch,
        mishaps: Mishaps,
    ) -> None:
        self._shelf = shelf
        self._me = me
        self._population = population
        self._homes = homes
        self._telling = telling
        self._watch = watch
        self._mishaps = mishaps
        self._known: dict[str, dict[str, Known]] = {}
        """Per simulation the sources that others speak for, by the name that they are shared by."""
        self._since: dict[str, bytes] = {}
        self._stale: dict[str, None] = {}
        self._rung: dict[str, None] = {}
        self._called = asyncio.Event()

    def ring(self, simulation: str) -> None:
        """A simulation has changed."""
        (self._rung if simulation in self._since else self._stale)[simulation] = None
        self._called.set()

    def doubt(self, simulation: str) -> None:
        """What is known of a simulation may be wrong."""
        self._stale[simulation] = None
        self._called.set()

    def doubt_all(self) -> None:
        """What is known may be wrong."""
        for simulation in self._since:
            self.doubt(simulation)

    def ring_all(self) -> None:
        """Look whether a change was missed."""
        for simulation in self._since:
            self.ring(simulation)

    def keep(self, simulations: Collection[str]) -> None:
        """Forget simulations that there are no more."""
        for simulation in self._since.keys() - simulations - self._known.keys():
            del self._since[simulation]
            self._rung.pop(simulation, None)
            self._stale.pop(simulation, None)

    def loaded(self, simulation: str) -> bool:
        """Whether a simulation has been read."""
        return simulation in self._since

    def known(self, simulation: str) -> Collection[Known]:
        """Return the sources of a simulation that others speak for."""
        return self._known.get(simulation, {}).values()

    async def run(self) -> None:
        """Read until cancelled. Raises one of `AWAY` where Redis doesn't answer."""
        while True:
            heed()
            await self._called.wait()
            self._called.clear()
            try:
                while self._stale:
                    simulation = next(iter(self._stale))
                    if not await self._mishaps.survived("reading a simulation", self._load(simulation)):
                        # The next look is soon enough.
                        self._stale.pop(simulation, None)
                while self._rung:
                    simulation = next(iter(self._rung))
                    if not await self._mishaps.survived("reading what changed", self._read(simulation)):
                        self.doubt(simulation)
            except BaseException:
                self._called.set()
                raise
            self._watch.wake()
            await asyncio.sleep(READ_SECONDS)

    def look(self) -> None:
        """Once a second: forget what nobody speaks for any more, and what has come back to this daemon."""
        everything = [(simulation, name) for simulation, names in self._known.items() for name in names]
        for simulation, name in everything:
            known = self._known[simulation][name]
            source = self._telling.names(simulation).get(name)
            if source is not None and self._telling.speaks(source) and self._watch.healed(source):
                self._forget(simulation, name)
            elif self._watch.dead(known.owner.daemon):
                log.warning("a daemon is gone, and what it told", daemon=known.owner.daemon, source=name)
                self._forget(simulation, name)
            elif known.missing > MISSING_LOOKS:
                self._forget(simulation, name)
            else:
                known.missing += bool(known.missing)
                if known.missing:
                    self.doubt(simulation)
                self._population.still_heard(known.stream.source, monotonic())

    async def _load(self, simulation: str) -> None:
        since = await self._shelf.last_change(simulation)
        spoken = await self._shelf.spoken(simulation)
        if any(self._watch.dead(one.owner.daemon) for one in spoken.values()):
            await self._watch.look(self._shelf)
        for name, one in spoken.items():
            if one.owner.daemon != self._me and not self._watch.dead(one.owner.daemon):
                try:
                    await self._load_source(simulation, name, one)
                except ValueError as error:  # an agent's name that none can have
                    self._mishaps.refused(name, error)
        for name, known in self._known.get(simulation, {}).items():
            if name not in spoken:
                known.missing = max(known.missing, 1)
        if spoken or self._population.own_of(simulation):
            # Where the agents of an ended one have lived is kept in Redis for a day, should it begin anew.
            await self._load_homes(simulation)
        self._since[simulation] = since
        self._stale.pop(simulation, None)
        self._rung[simulation] = None

    async def _load_source(self, simulation: str, name: str, spoken: Spoken) -> None:
        told: dict[str, Told | None] = {**await self._shelf.told(simulation, name)}
        owner, head = spoken
        known = self._known.get(simulation, {}).get(name)
        if head.whole and known is not None:
            before = {key.partition("/")[2] for key in self._population.agents_of(known.stream.source)}
            told.update(dict.fromkeys(before - told.keys()))
        agents, more = iter(told.items()), True
        while more:
            some = dict(islice(agents, TURN_AGENTS))
            more = len(some) == TURN_AGENTS
            self._take(simulation, name, owner, Word(head, some), anew=True)
            await asyncio.sleep(0)
        self._yield_to(simulation, name, owner)

    async def _load_homes(self, simulation: str) -> None:
        placed = await self._shelf.placed(simulation)
        for name, engine in placed.items():
            self._place(f"{simulation}/{name}", engine)
        untold: dict[str, str | None] = {}
        for source in self._population.own_of(simulation):
            for key in self._population.agents_of(source):
                home = self._homes.home(key)
                if home is not None and key.partition("/")[2] not in placed:
                    untold[key] = home
        if untold:
            self._telling.placed(untold)

    async def _read(self, simulation: str) -> None:
        self._rung.pop(simulation, None)
        found, complete = await self._shelf.changes(simulation, self._since[simulation])
        if not complete:
            self.doubt(simulation)
            return
        for number, change in found:
            try:
                doubtful = not self._change(simulation, change)
            except (msgspec.MsgspecError, ValueError, KeyError) as error:
                self._mishaps.refused(simulation, error)
                doubtful = False
            self._since[simulation] = number
            if doubtful:
                self.doubt(simulation)
                return
        if len(found) == PAGE:
            self.ring(simulation)

    def _change(self, simulation: str, change: Change) -> bool:
        """Take in one change; return False where changes before it were missed."""
        if b"p" in change:
            for name, engine in read_names(change[b"p"]).items():
                self._place(f"{simulation}/{name}", engine or None)
            return True
        if b"v" in change:
            if change[b"d"].decode() != self._me:
                self._follow_calls(simulation, read_names(change[b"v"]))
            return True
        name, owner = change[b"s"].decode(errors="replace"), Owner.read(change[b"o"])
        if owner.daemon == self._me:
            return True
        known = self._known.get(simulation, {}).get(name)
        if b"w" not in change:
            if known is not None and owner.claim >= known.owner.claim:
                self._forget(simulation, name)
            return True
        if known is None:
            return False
        if (owner.claim, owner.number) <= (known.owner.claim, known.owner.number):
            return True
        word = read_word(change[b"w"])
        if owner.number != known.owner.number + 1 or (known.partial and word.head.whole):
            return False
        self._take(simulation, name, owner, word)
        self._yield_to(simulation, name, owner)
        return True

    def _take(self, simulation: str, name: str, owner: Owner, word: Word, *, anew: bool = False) -> None:
        if self._is_ours(simulation, name, owner):
            return
        source = f"{name} of {simulation}, told"
        stream = Stream(source, simulation, owner.incarnation, word.head.clock, owner.daemon)
        self._population.foretell(stream, word, monotonic(), anew=anew)
        self._known.setdefault(simulation, {})[name] = Known(stream, owner, partial=not word.head.whole)

    def _is_ours(self, simulation: str, name: str, owner: Owner) -> bool:
        """Whether this daemon has spoken for the source later than an owner."""
        own = self._telling.owner_of(simulation, name)
        return own is not None and own.claim > owner.claim

    def _yield_to(self, simulation: str, name: str, owner: Owner) -> None:
        """Where another daemon has spoken for a source later than this one, it is forgotten here."""
        own = self._telling.owner_of(simulation, name)
        if own is not None and own.claim < owner.claim:
            self._watch.lost(self._telling.names(simulation)[name])

    def _follow_calls(self, simulation: str, seen: Mapping[str, str]) -> None:
        moved: dict[str, str | None] = {}
        for name, engine in seen.items():
            key = f"{simulation}/{name}"
            if self._population.knows(key):
                self._homes.call_seen(key, engine, moved)
        self._telling.placed(moved)
        for key in moved:
            self._population.hold_where_needed(key)

    def _place(self, key: str, engine: str | None) -> None:
        if self._homes.placement.moved(key, engine):
            self._population.hold_where_needed(key)

    def _forget(self, simulation: str, name: str) -> None:
        known = self._known[simulation].pop(name)
        if not self._known[simulation]:
            del self._known[simulation]
        self._population.unheard(known.stream.source)
        self._watch.wake()
