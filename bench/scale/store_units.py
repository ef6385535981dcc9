"""What one due, word, lease, decision, tick takes of a Valkey: commands, CPU time, bytes of memory and on the wire.

All are written and read by the daemon's own code: dues, ticks and decisions by the mirror (`scalesim_daemon/store.py`),
500 dues in a message; what is told to other daemons by `scalesim_daemon/fleet/shelf.py`, 200 agents in a word; leases
by `lease_store.py`. What comes alone is measured, too, from 20 clients at once: what both differ by is a message's own
cost. The server listens on TCP, as one for several hosts does. Its CPU time is that of the one thread that executes
commands: where that is busy all the time, a shard can do no more. Beside each stands the same of a bare `SET` of 100
bytes in pipelines of 500: the ratio of both holds on other machines too.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random

from redis.asyncio import Redis

from bench.scale import sharing
from bench.scale.said import BARE_BYTES, SIMULATION, decision_of, key_of, record_of, simulation_of
from bench.scale.server import Meter, valkey
from bench.scale.sharing import Daemon
from scalesim_daemon.store import CHUNK, Mirror

AGENTS = 100_000
SIMULATIONS = 1_000
CHANGED = 20_000
LEASES = 2_000
ALONE = 2_000
TICKS = 25
CROWD = 100
UNITS = (
    "bare",
    "due",
    "due_alone",
    "tick",
    "decision",
    "told",
    "told_alone",
    "ring",
    "read",
    "read_alone",
    "placed",
    "content",
    "beat",
    "beat_other",
    "lease",
)


def store_units(rounds: int, seed: int) -> Iterator[Mapping[str, float]]:
    """Yield of each round what each unit costs, and what each record takes of memory, on a server of its own."""
    for number in range(rounds):
        found = asyncio.run(_round(Random(seed + number)))
        yield found | {
            f"{unit}.over_bare": found[f"{unit}.server_us"] / found["bare.server_us"] for unit in UNITS
        }


async def _round(rng: Random) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        async with valkey(Path(name)) as url, Redis.from_url(url, decode_responses=True) as client:
            meter = Meter(client)
            found = await meter.cost("bare", CHANGED, _bare(client, CHANGED))
            async with AsyncExitStack() as stack:
                mirrors = [await stack.enter_async_context(_mirroring(url)) for _ in range(sharing.AT_ONCE)]
                found |= await _mirrored(meter, mirrors, rng)
            async with sharing.fleet(url) as daemons:
                found |= await _shared(meter, daemons, rng)
            return found | await _leased(meter, client)


async def _mirrored(meter: Meter, mirrors: list[Mirror], rng: Random) -> dict[str, float]:
    """Dues, clocks and decisions."""
    first, *_ = mirrors
    lone = {key_of(number, simulation_of(number)): number for number in range(SIMULATIONS)}
    empty = await meter.memory()
    await _write(first, lone, rng)
    await _tick(first, [simulation_of(number) for number in range(SIMULATIONS)], 1)
    opened = await meter.memory()
    await _write(first, {key_of(agent): agent for agent in range(AGENTS)}, rng)
    found = {
        "memory.simulation": (opened - empty) / SIMULATIONS,
        "memory.agent": (await meter.memory() - opened) / AGENTS,
    }
    changed = rng.sample(range(AGENTS), CHANGED)
    found |= await meter.cost("due", CHANGED, _write(first, {key_of(one): one for one in changed}, rng))
    alone = _together(_write(mirror, lone, rng) for mirror in mirrors)
    found |= await meter.cost("due_alone", SIMULATIONS * len(mirrors), alone)
    ticks = _together(_tick(mirror, [SIMULATION], TICKS) for mirror in mirrors)
    found |= await meter.cost("tick", TICKS * len(mirrors), ticks)
    return found | await meter.cost("decision", CHANGED // 4, _decide(first, CHANGED // 4))


async def _shared(meter: Meter, daemons: Sequence[Daemon], rng: Random) -> dict[str, float]:
    """What daemons tell one another: words, homes of agents, prefixes, and that they are there."""
    first, *_ = daemons
    changed = range(CHANGED)
    empty = await meter.memory()
    await first.say(changed, rng)
    known, since = await meter.memory(), await first.shelf.last_change(SIMULATION)
    found = await meter.cost("told", CHANGED, first.say(changed, rng))
    found |= await meter.cost("read", CHANGED, sharing.read(first, since, CHANGED))
    words = (await meter.memory() - known) / CHANGED
    # The stream keeps as many words as it was given: what both have in common is the agents' records.
    found |= {"memory.word": words, "memory.told": (known - empty) / CHANGED - words}

    async def say() -> None:
        await sharing.at_once(daemons, ALONE, lambda daemon: daemon.say([daemon.number], rng))

    found |= await sharing.ring_cost(meter, daemons, say, ALONE)
    since = await first.shelf.last_change(SIMULATION)
    await first.say([first.number], rng)
    found |= await meter.cost("read_alone", ALONE, sharing.read_latest(daemons, since, ALONE))
    before = await meter.memory()
    found |= await meter.cost("placed", CHANGED, sharing.place(first, CHANGED))
    found["memory.placed"] = (await meter.memory() - before) / CHANGED
    found |= await meter.cost("content", ALONE, sharing.bring(first, ALONE))
    few = await meter.cost("beat", ALONE, sharing.beat(daemons, ALONE))
    await sharing.crowd(first, range(len(daemons), len(daemons) + CROWD))
    many = await meter.cost("beat", ALONE, sharing.beat(daemons, ALONE))
    other = {name: max(0.0, many[name] - value) / CROWD for name, value in few.items()}
    found |= {name: max(0.0, value - len(daemons) * other[name]) for name, value in few.items()}
    return found | {name.replace("beat", "beat_other"): value for name, value in other.items()}


async def _leased(meter: Meter, client: Redis) -> dict[str, float]:
    before = await meter.memory()
    tokens = await sharing.lend(client, LEASES)
    memory = {"memory.lease": (await meter.memory() - before) / LEASES}
    return memory | await meter.cost("lease", ALONE, sharing.renew(client, tokens, ALONE))


@asynccontextmanager
async def _mirroring(url: str) -> AsyncIterator[Mirror]:
    mirror = Mirror(url)
    task = asyncio.create_task(mirror.run(dict))
    try:
        await mirror.drained()
        yield mirror
    finally:
        task.cancel()
        await asyncio.wait([task])


async def _together(works: Iterable[Awaitable[None]]) -> None:
    """Begin all of them when this is awaited, and not before."""
    await asyncio.gather(*works)


async def _write(mirror: Mirror, agents: Mapping[str, int], rng: Random) -> None:
    for key, agent in agents.items():
        mirror.mark(key, record_of(agent, rng))
    await mirror.drained()


async def _tick(mirror: Mirror, simulations: list[str], times: int) -> None:
    for now in range(times):
        for simulation in simulations:
            mirror.clock(simulation, "sim_seconds", float(now), 0.1)
        await mirror.drained()


async def _decide(mirror: Mirror, decisions: int) -> None:
    for agent in range(decisions):
        mirror.decision(decision_of(agent))
    await mirror.drained()


async def _bare(client: Redis, count: int) -> None:
    await _in_pipelines(client, [("SET", f"bare:{one:07d}", "x" * BARE_BYTES) for one in range(count)])


async def _in_pipelines(client: Redis, commands: list[tuple[str | int, ...]]) -> None:
    for at in range(0, len(commands), CHUNK):
        pipeline = client.pipeline(transaction=False)
        for command in commands[at : at + CHUNK]:
            pipeline.execute_command(*command)
        await pipeline.execute()
