"""A start with 100,000 agents that Redis knows, against a bare read of the same keys.

Redis (a Valkey) holds what a daemon has written of them: their dues, and a record each. A daemon takes no due from
there, since a simulation may have gone on or over meanwhile: it asks the simulation for its state, and brings Redis in
step with that. So a start is over when all agents are on the due board again and every record that Redis has is the
right one: feed, gate, estimators, board and mirror for all of them, beside everything that `scalesimd serve` starts
(but for the interpreter and its imports). The simulation's snapshot waits at the daemon's door.

The bare loop reads the same keys by the same client library: the sorted set of dues as a whole, and the records in
pipelines of a thousand.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter

from redis.asyncio import Redis

from bench.daemon.rig import daemon
from bench.daemon.said import SIMULATION, speaking
from scalesim_daemon.embedded import EmbeddedValkey
from scalesim_daemon.store import prefix_of

AGENTS = 100_000
PIPELINE = 1_000
POLL = 0.005
WITHIN = 300.0


def start(rounds: int, seed: int) -> Iterator[Mapping[str, float]]:
    """Yield of each round how much longer a start takes than a bare read."""
    with tempfile.TemporaryDirectory(prefix="start-") as name, asyncio.Runner() as runner:
        folder = Path(name)
        valkey = EmbeddedValkey(folder / "store")
        runner.run(valkey.start())
        try:
            runner.run(_start(folder, valkey.url, 1, seed))
            for number in range(rounds):
                bare = runner.run(_read(valkey.url))
                seconds = runner.run(_start(folder, valkey.url, 2 + number, seed))
                yield {"start_over_bare": seconds / bare, "bare read, s": bare, "start, s": seconds}
        finally:
            runner.run(valkey.stop())


async def _read(url: str) -> float:
    async with Redis.from_url(url, decode_responses=True) as client:
        began = perf_counter()
        dues = await client.zrange(f"{prefix_of(SIMULATION)}due:step", 0, -1, withscores=True)
        assert len(dues) == AGENTS
        for at in range(0, AGENTS, PIPELINE):
            pipeline = client.pipeline(transaction=False)
            for agent, _ in dues[at : at + PIPELINE]:
                pipeline.hgetall(f"{prefix_of(SIMULATION)}agent:{agent}")
            await pipeline.execute()
        return perf_counter() - began


async def _start(folder: Path, url: str, incarnation: int, seed: int) -> float:
    with speaking("state", f"ipc://{folder}/feed", incarnation, AGENTS, seed):
        began = perf_counter()
        async with asyncio.timeout(WITHIN), daemon(folder, redis={"url": url}) as sidecar:
            assert sidecar.mirror is not None
            while sidecar.mirror.written < AGENTS:  # noqa: ASYNC110  # the first of them can't be waited for
                await asyncio.sleep(POLL)
            await sidecar.mirror.drained()
            assert len(sidecar.population.board) == AGENTS
            return perf_counter() - began
