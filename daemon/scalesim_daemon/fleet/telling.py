"""What this daemon hears, told to the others: source by source, what has changed, as fast as Redis takes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

import structlog

from scalesim_daemon.fleet.mishaps import Mishaps
from scalesim_daemon.fleet.population import SharedPopulation
from scalesim_daemon.fleet.shelf import Shelf
from scalesim_daemon.fleet.words import MOST_CALLS, Owner, Word
from scalesim_daemon.gate import Stream
from scalesim_daemon.population import Changes
from scalesim_daemon.redis_client import heed

WORD_AGENTS = 200
# What happens within so long goes in one word.
GATHER_SECONDS = 0.005

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Line:
    """One source that is heard here: `owner` is our last word as Redis has it, None before the first claim. `dirty` are
    agents of whom something is to be told, and `told` those of whom something was. It is to be claimed `again` where
    Redis has something else than our last word, and `lost` where another daemon speaks for it."""

    stream: Stream
    name: str
    owner: Owner | None = None
    again: bool = True
    news: bool = True
    ended: bool = False
    lost: bool = False
    dirty: dict[str, None] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)


class Telling:
    """Writes. `note` and the others that aren't coroutines return at once."""

    def __init__(
        self,
        shelf: Shelf,
        me: str,
        population: SharedPopulation,
        doubt: Callable[[str], None],
        unsaid: Callable[[str], None],
        mishaps: Mishaps,
    ) -> None:
        self._shelf = shelf
        self._me = me
        self._population = population
        self._doubt = doubt
        self._unsaid = unsaid
        self._mishaps = mishaps
        self._lines: dict[str, Line] = {}
        self._placed: dict[str, dict[str, str | None]] = {}
        self._served: dict[str, dict[str, str]] = {}
        self._dirty = asyncio.Event()

    def note(self, changes: Changes) -> None:
        """Take in what has changed."""
        streams = self._population.own_streams()
        for source, stream in streams.items():
            line = self._lines.get(source)
            if line is None or line.stream != stream:
                self._lines[source] = Line(stream, _shared_name(stream, self._me))
                self._dirty.set()
        for source in self._lines.keys() - streams.keys():
            self._lines[source].ended = self._lines[source].news = True
            self._dirty.set()
        for source in changes.clocks & self._lines.keys():
            self._lines[source].news = not self._lines[source].lost
            self._dirty.set()
        lists = (changes.started, changes.finished, changes.woken, changes.bound, changes.unbound)
        for key in changes.dues.union(*lists):
            self._mark(key)

    def _mark(self, key: str) -> None:
        for source in self._population.own_of(key.partition("/")[0]):
            line = self._lines[source]
            if self._population.speaks_of(source, key) or key in line.told:
                line.dirty[key] = None
                line.news = not line.lost
                self._dirty.set()

    def placed(self, moved: Mapping[str, str | None]) -> None:
        """Tell where agents live from now on."""
        for key, engine in moved.items():
            simulation, _, name = key.partition("/")
            self._placed.setdefault(simulation, {})[name] = engine
        self._dirty.set()

    def call_seen(self, key: str, engine: str) -> None:
        """Tell that an engine has served an agent."""
        simulation, _, name = key.partition("/")
        self._served.setdefault(simulation, {})[name] = engine
        self._dirty.set()

    def restate(self) -> None:
        """Redis may have lost what we wrote: look at every source."""
        for line in self._lines.values():
            line.news = not line.lost
        self._dirty.set()

    def forget(self, source: str) -> None:
        """A source isn't ours any more."""
        self._lines.pop(source, None)

    def speaks(self, source: str) -> bool:
        """Whether a source is heard here and ours to speak for."""
        line = self._lines.get(source)
        return line is not None and line.owner is not None and not line.lost

    def owner_of(self, simulation: str, name: str) -> Owner | None:
        """Return our last word on a source by its shared name, None where there is none."""
        line = self._lines.get(self.names(simulation).get(name, ""))
        return None if line is None else line.owner

    def owners(self, simulation: str) -> list[Owner | None]:
        """Return our last word on each source of a simulation, None for none yet."""
        return [self._lines[source].owner for source in self.names(simulation).values()]

    def names(self, simulation: str) -> dict[str, str]:
        """Return the sources of a simulation that are heard here, by the name that they are shared by."""
        sources = (
            self._lines[source] for source in self._population.own_of(simulation) if source in self._lines
        )
        return {line.name: line.stream.source for line in sources}

    def simulations(self) -> Collection[str]:
        """Return the simulations that are heard here."""
        return {line.stream.simulation for line in self._lines.values()}

    async def run(self) -> None:
        """Write until cancelled. Raises one of `AWAY` where Redis doesn't answer; what it didn't take is kept."""
        while True:
            heed()
            await self._dirty.wait()
            self._dirty.clear()
            try:
                for source, line in list(self._lines.items()):
                    if not line.news or self._lines.get(source) is not line:
                        continue
                    if not await self._mishaps.survived("telling other daemons", self._tell(line)):
                        # It keeps no other from its turn, and is told anew from the next `restate` on.
                        line.news, line.again = False, True
                await self._tell_engines()
            except BaseException:
                self._dirty.set()
                raise
            await asyncio.sleep(GATHER_SECONDS)

    async def _tell(self, line: Line) -> None:
        stream = line.stream
        if line.ended:
            if line.owner is not None and not line.lost:
                await self._shelf.say(stream.simulation, line.name, line.owner, line.owner, None)
            self._lines.pop(stream.source, None)
            return
        if line.again and not await self._claim(line):
            return
        line.news = False
        while await self._say(line) and line.dirty:
            pass

    async def _claim(self, line: Line) -> bool:
        """Speak for the source from now on; return whether it is ours. What stands there and isn't so is unsaid."""
        stream = line.stream
        fence = 0 if line.owner is None else line.owner.fence
        owner = await self._shelf.claim(stream.simulation, line.name, stream.incarnation, fence, self._me)
        if owner.daemon != self._me:
            self._let_go(line, owner)
            return False
        await self._shelf.spoken_for([stream.simulation])
        there = {
            f"{stream.simulation}/{name}" for name in await self._shelf.agents(stream.simulation, line.name)
        }
        own = self._population.agents_of(stream.source)
        for key in there - own:
            self._unsaid(key)
        line.dirty.update(dict.fromkeys(there | own))
        line.owner, line.again = owner, False
        return True

    async def _say(self, line: Line) -> bool:
        """Tell of some agents; return whether the line may go on."""
        population, stream = self._population, line.stream
        heard = stream.source in population.own_of(stream.simulation)
        if not heard or line.owner is None or self._lines.get(stream.source) is not line:
            return False
        keys = list(islice(line.dirty, WORD_AGENTS))
        for key in keys:
            del line.dirty[key]
        agents = {key.partition("/")[2]: population.told(stream.source, key) for key in keys}
        about = [(stream.source, key) for key in keys]
        calls = {one: population.calls.pop(one) for one in about if one in population.calls}
        woken = [one for one in about if one in population.woken]
        for one in woken:
            del population.woken[one]
        word = Word(
            population.head(stream.source, whole=not line.dirty),
            agents,
            {_name(one): min(count, MOST_CALLS) for one, count in calls.items()},
            list(map(_name, woken)),
        )
        before = line.owner
        now = Owner(before.incarnation, before.fence, before.number + 1, self._me)
        answer: Owner | None = None
        try:
            answer = await self._shelf.say(stream.simulation, line.name, before, now, word)
        finally:
            if answer != now:
                line.dirty.update(dict.fromkeys(keys))
                line.news = line.again = True
                population.calls.update(calls)
                population.woken.update(dict.fromkeys(woken))
        if answer == now:
            line.owner = now
            line.told.update(key for key in keys if agents[key.partition("/")[2]] is not None)
            line.told.difference_update(key for key in keys if agents[key.partition("/")[2]] is None)
            return True
        if answer is not None and answer.daemon != self._me and answer.claim > before.claim:
            self._let_go(line, answer)
        else:
            # Redis has lost our words, and so maybe more.
            self._doubt(stream.simulation)
            self._dirty.set()
        return False

    def _let_go(self, line: Line, owner: Owner) -> None:
        """What another daemon says is read before what is known here is forgotten."""
        log.info("another daemon hears this source now", source=line.stream.source, daemon=owner.daemon)
        line.news, line.lost = False, True
        if line.owner is None:
            line.owner = Owner(line.stream.incarnation, 0, 0, self._me)
        self._doubt(line.stream.simulation)

    async def _tell_engines(self) -> None:
        placed, self._placed = self._placed, {}
        served, self._served = self._served, {}
        try:
            for simulation, moved in list(placed.items()):
                for some in _pieces(moved):
                    await self._shelf.place(simulation, some)
                del placed[simulation]
            for simulation, seen in list(served.items()):
                await self._shelf.tell_calls(simulation, seen, self._me)
                del served[simulation]
        finally:
            # What was said meanwhile is newer.
            for simulation, moved in placed.items():
                self._placed[simulation] = moved | self._placed.get(simulation, {})
            for simulation, seen in served.items():
                self._served[simulation] = seen | self._served.get(simulation, {})


def _pieces(moved: Mapping[str, str | None]) -> Iterator[dict[str, str | None]]:
    agents = list(moved.items())
    for start in range(0, len(agents), WORD_AGENTS):
        yield dict(agents[start : start + WORD_AGENTS])


def _name(spoken: tuple[str, str]) -> str:
    return spoken[1].partition("/")[2]


def _shared_name(stream: Stream, me: str) -> str:
    """Return what a source is shared by. One without an incarnation of its own, which the gateway or a nameless sender
    is, belongs to its daemon: others have one of the same name."""
    return stream.source if stream.incarnation else f"{stream.source}@{me}"
