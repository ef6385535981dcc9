"""What daemons of a fleet ask of Redis, by their own code (`scalesim_daemon/fleet`), as 20 daemons at once would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from random import Random
from time import monotonic
from typing import Any

from redis.asyncio import Redis

from bench.scale.said import CONTENT_HASH, ENGINE, PREFIX_BYTES, SIMULATION, name_of
from bench.scale.server import Meter
from scalesim_daemon.fleet.lease import Ask, Terms, Verb
from scalesim_daemon.fleet.lease_store import LeaseStore
from scalesim_daemon.fleet.population import SharedPopulation
from scalesim_daemon.fleet.shelf import Shelf
from scalesim_daemon.fleet.telling import WORD_AGENTS
from scalesim_daemon.fleet.words import Bound, Engine, Head, Owner, Told, Word, read_word
from scalesim_daemon.gate import Stream

AT_ONCE = 20
"""So many daemons ask at a time: a server that is asked by one alone spends most of its time on being woken."""
LEASE_SECONDS = 3_600.0
HEAD = Head("sim_seconds", 1e5, 0.1, 60.0, 0.9, True, True)
STREAM = Stream(f"{SIMULATION}, told", SIMULATION, 1, "sim_seconds", "daemon-0001")


@dataclass(slots=True)
class Daemon:
    """One of those who share: what it speaks of, and its last word."""

    number: int
    shelf: Shelf
    source: str
    owner: Owner
    words: Any = field(default_factory=lambda: count(1))

    @classmethod
    async def joined(cls, number: int, url: str) -> Daemon:
        """Return a daemon that speaks for a source of its own."""
        shelf, source = Shelf(url), f"world-{number:04d}"
        return cls(number, shelf, source, await shelf.claim(SIMULATION, source, 1, 0, f"daemon-{number:04d}"))

    async def say(self, agents: Sequence[int], rng: Random) -> None:
        """Tell what has changed of agents, as many in a word as there may be."""
        for at in range(0, len(agents), WORD_AGENTS):
            word = Word(
                HEAD, {name_of(agent): told_of(agent, rng) for agent in agents[at : at + WORD_AGENTS]}
            )
            now = Owner(1, self.owner.fence, next(self.words), self.owner.daemon)
            assert await self.shelf.say(SIMULATION, self.source, self.owner, now, word) == now
            self.owner = now


def told_of(agent: int, rng: Random) -> Told:
    """Return what is told of an agent with a LoRA and a prefix of its own."""
    bound = Bound(f"/srv/loras/{name_of(agent)}", name_of(agent), content=f"{agent:0{CONTENT_HASH}x}")
    return Told(1e6 * rng.random(), 0.9, "activity ends", 0, bound)


@asynccontextmanager
async def fleet(url: str) -> AsyncIterator[list[Daemon]]:
    """Let so many daemons share as are to ask at once."""
    async with AsyncExitStack() as stack:
        daemons = [await Daemon.joined(number, url) for number in range(AT_ONCE)]
        for daemon in daemons:
            stack.push_async_callback(daemon.shelf.close)
        yield daemons


@asynccontextmanager
async def listening(daemons: Sequence[Daemon]) -> AsyncIterator[None]:
    """Let them hear the bell."""
    hears = [daemon.shelf.heard() for daemon in daemons]
    for one in hears:
        await anext(one)
    tasks = [asyncio.create_task(_hear(one)) for one in hears]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _hear(bell: AsyncGenerator[object, None]) -> None:
    async with aclosing(bell):
        async for _ in bell:
            pass


async def read(daemon: Daemon, since: bytes, agents: int) -> None:
    """Read what was told since a change of so many agents, and take it in."""
    population = SharedPopulation()
    while agents > 0:
        found, _ = await daemon.shelf.changes(SIMULATION, since)
        words = [read_word(change[b"w"]) for _, change in found]
        for word in words:
            population.foretell(STREAM, word, monotonic())
        since, agents = found[-1][0], agents - sum(len(word.agents) for word in words)


async def read_latest(daemons: Sequence[Daemon], since: bytes, times: int) -> None:
    """Read the one word that was told since a change so many times, each daemon for itself."""
    population = SharedPopulation()

    async def one(daemon: Daemon) -> None:
        ((_, change),), _ = await daemon.shelf.changes(SIMULATION, since)
        population.foretell(STREAM, read_word(change[b"w"]), monotonic())

    await at_once(daemons, times, one)


async def place(daemon: Daemon, agents: int) -> None:
    """Write where so many agents live."""
    for at in range(0, agents, WORD_AGENTS):
        some = {name_of(agent): ENGINE for agent in range(at, min(agents, at + WORD_AGENTS))}
        await daemon.shelf.place(SIMULATION, some)


async def bring(daemon: Daemon, contents: int) -> None:
    """Bring so many prefixes, and fetch each."""
    for number in range(contents):
        name = f"{number:0{CONTENT_HASH}x}"
        await daemon.shelf.bring(name, b"x" * PREFIX_BYTES)
        assert await daemon.shelf.fetch(name)


async def beat(daemons: Sequence[Daemon], times: int) -> None:
    """Say that each daemon is there, and how its engine is, and look at all the others."""

    async def one(daemon: Daemon) -> None:
        await daemon.shelf.beat(f"daemon-{daemon.number:04d}", 1, {engine_of(daemon.number): STATE})
        await daemon.shelf.beats()
        await daemon.shelf.engines()

    await at_once(daemons, times, one)


STATE = Engine(
    "daemon-0001", "http://rack07-host13:8000", True, ["meta-llama/Llama-3.1-8B-Instruct"], 200_000
)


async def crowd(daemon: Daemon, others: range) -> None:
    """Let there be more daemons, with an engine each."""
    for number in others:
        await daemon.shelf.beat(f"daemon-{number:04d}", 1, {engine_of(number): STATE})


def engine_of(number: int) -> str:
    """Return the name of an engine."""
    return f"{ENGINE}-{number:04d}"


async def lend(client: Redis, engines: int) -> list[int]:
    """Take the lease of each engine; return the tokens."""
    store, asks = LeaseStore(client, "daemon-0000", Terms.of(LEASE_SECONDS)), Ask(Verb.TAKE, 0, 0.0)
    return [(await store.put(engine_of(number), asks)).token for number in range(engines)]


async def renew(client: Redis, tokens: Sequence[int], times: int) -> None:
    """Renew leases so many times, each daemon its own."""
    store = LeaseStore(client, "daemon-0000", Terms.of(LEASE_SECONDS))

    async def one(engine: int) -> None:
        token = tokens[engine]
        assert (await store.put(engine_of(engine), Ask(Verb.RENEW, token, 0.0))).token == token

    await at_once(range(AT_ONCE), times, one)


async def at_once(who: Sequence[Any], times: int, work: Callable[[Any], Awaitable[None]]) -> None:
    """Let all of them work at a time, until it is done so many times."""
    for _ in range(times // len(who)):
        await asyncio.gather(*map(work, who))


async def ring_cost(
    meter: Meter, daemons: Sequence[Daemon], say: Callable[[], Coroutine[Any, Any, None]], words: int
) -> dict[str, float]:
    """Return what words cost, and what it costs that one daemon hears the bell of one: what they cost with listeners
    beyond without."""
    alone = await meter.cost("told_alone", words, say())
    async with listening(daemons):
        heard = await meter.cost("told_alone", words, say())
    rung = {
        name.replace("told_alone", "ring"): max(0.0, heard[name] - value) / len(daemons)
        for name, value in alone.items()
    }
    return alone | rung
