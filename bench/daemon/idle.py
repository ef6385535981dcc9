"""Memory per idle agent: what a daemon's process grows by, over how many agents it has come to know meanwhile.

Each agent has bound a model, called twice and acts by itself since: its dues, its clock's reckoning, what is learned of
its calls, what the score remembers and the mirror has written are all kept. Nobody listens to the broadcast. A prefix
isn't bound: its content is kept once, in a bounded store (`prefixes.py`), and in the engines' views. Resident memory
(`VmRSS`) of a fresh process, a whole daemon with Redis, before and after 100,000 agents; the first thousand are there
before. `python -m bench.daemon.idle` is that process. There is no bare loop: bytes are bytes.
"""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

from bench.daemon.rig import daemon, open_stream, say
from bench.daemon.said import call, name_of
from scalesim_client.codec import encode
from scalesim_client.events import MemoryBound, StepAdvanced
from scalesim_daemon.loop import Sidecar

FIRST, AGENTS = 1_000, 100_000
FAR = 1_000
CALLS = 2
LOT = 250


def idle(rounds: int, seed: int) -> Iterator[Mapping[str, float]]:
    """Yield of each round the bytes per agent."""
    for _ in range(rounds):
        out = subprocess.run(
            [sys.executable, "-m", "bench.daemon.idle"], check=True, stdout=subprocess.PIPE, text=True
        ).stdout
        yield {"bytes_per_idle_agent": float(out)}


async def measure(folder: Path) -> float:
    """Return the bytes per agent."""
    async with daemon(folder) as sidecar:
        open_stream(sidecar)
        seqs = count(1)
        await _live(sidecar, seqs, range(FIRST), first=1)
        before = await _settled(sidecar)
        await _live(sidecar, seqs, range(FIRST, FIRST + AGENTS), first=1 + CALLS)
        return (await _settled(sidecar) - before) / AGENTS


async def _live(sidecar: Sidecar, seqs: Iterator[int], agents: range, first: int) -> None:
    """Let all agents call as often as they do, each time all of them in a step of its own."""
    assert sidecar.mirror is not None
    for step in range(first, first + CALLS):
        say(sidecar, encode(0.0, [StepAdvanced(now=float(step))]), next(seqs))
        for at in range(0, len(agents), LOT):
            events = [event for agent in agents[at : at + LOT] for event in call(agent, FAR)]
            if step == first:
                bound = [MemoryBound(agent=name_of(agent), model="base") for agent in agents[at : at + LOT]]
                events = [*bound, *events]
            say(sidecar, encode(0.0, events), next(seqs))
            # Told and written as it comes: no pile of what is still to be done is left.
            sidecar.cycle()
            await sidecar.mirror.drained()


async def _settled(sidecar: Sidecar) -> int:
    assert sidecar.mirror is not None
    await sidecar.mirror.drained()
    gc.collect()
    return _resident()


def _resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="idle-") as name:
        print(asyncio.run(measure(Path(name))))
