"""`python -m bench.soak`: half an hour at 5,000 events a second, with agents, sources and simulations that come and go.

A real daemon with its Valkey, beside two emulated engines with their KV events. Simulations that the clock drives say
most of the events, by sockets of their own, numbered; some use the real publisher. A share of the agents calls an
engine, so that the daemon prefetches and engines evict; now and then strangers call, too. Once a minute all engines
stand still, and what the daemon knows of them is compared with what they hold. Somebody watches the live stream and
the broadcast for a while in each minute. What must hold stands in `figures.py`; where one thing doesn't, or the rate
isn't reached, the command ends with status 1. Nothing here says how fast an engine is.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from time import monotonic

import httpx
import msgspec
import zmq
import zmq.asyncio
from redis.asyncio import Redis
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.soak import rig
from bench.soak.cores import Cores
from bench.soak.drift import compare
from bench.soak.figures import MIB, Check, Figures, checks, course, figures
from bench.soak.plot import draw
from bench.soak.result import Conditions, Result, conditions, write
from bench.soak.samples import HEARD, Sample, Sampler
from bench.soak.speak import Said, Script

MINUTES = 30.0
RATE = 5_000.0
LOOK_SECONDS = 2.0
COMPARE_SECONDS = 60.0
WATCH_SECONDS = 20.0
HEARD_SECONDS = 60.0
"""What is late by more is taken for lost."""
SHOWN_DIFFERENCES = 10
SHOWN_LINES = 60


class Soak:
    """One run: what was seen so far, and what was found wrong."""

    def __init__(self, minutes: float, rate: float, seed: int) -> None:
        self.seconds = 60 * minutes
        self.rate = rate
        self.seed = seed
        self.samples: list[Sample] = []
        self.drift: list[str] = []
        self.compared = 0
        self.empty = 0
        self.said = Said()
        self.heard = 0
        self.conditions: Conditions | None = None

    async def run(self, folder: Path, progress: Progress) -> None:
        """Play all of it. Raises `SoakFailed` and `DaemonFailed` where a part ends before its time."""
        load = os.getloadavg()[0]
        async with rig.engines(folder, self.rate) as engines, rig.daemon(folder, engines) as daemon:
            self.empty = await _used_memory(daemon)
            script = Script(daemon.feed, list(engines), self.rate, self.seed)
            async with rig.speaking(script) as speaker:
                sampler = Sampler(daemon, speaker)
                pids = {"daemon": daemon.pid, "valkey": daemon.valkey_pid, "speaker": speaker.pid}
                named = {f"engine{at}": pid for at, pid in enumerate(engines.values())}
                cores = Cores({**pids, **named, "bench": os.getpid()})
                async with asyncio.TaskGroup() as group:
                    hearing = group.create_task(speaker.listen())
                    beside = [
                        group.create_task(self._watch(sampler, progress, daemon)),
                        group.create_task(_listen(daemon)),
                    ]
                    await self._compare(speaker, daemon, list(engines))
                    for task in beside:
                        task.cancel()
                    await asyncio.wait(beside)
                    self.samples.append(await sampler.look())
                    self.conditions = conditions(self.seed, load, cores.used(), cores.waited("daemon"))
                    self.said = await speaker.end()
                    await hearing
                self.heard = await self._all_heard(sampler)
                await sampler.close()

    @property
    def figures(self) -> Figures:
        """The figures."""
        return figures(self.samples, self.said, self.empty, self.drift, self.heard)

    @property
    def checks(self) -> list[Check]:
        """All that must hold."""
        found = self.figures
        return list(checks(self.samples, self.said, found, self.empty, self.rate, self.compared))

    @property
    def result(self) -> Result:
        """All that is kept."""
        assert self.conditions is not None
        return Result(
            self.conditions,
            self.figures,
            self.checks,
            self.said,
            self.drift[:SHOWN_DIFFERENCES],
            course(self.samples),
        )

    async def _watch(self, sampler: Sampler, progress: Progress, daemon: rig.WatchedDaemon) -> None:
        task = progress.add_task("", total=self.seconds)
        traced = 0.0
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            sample = await sampler.look()
            self.samples.append(sample)
            progress.update(task, completed=sample.seconds, description=self._now(sample))
            if sample.seconds >= traced + self.seconds / 3:
                traced = sample.seconds
                daemon.trace()

    def _now(self, sample: Sample) -> str:
        before = self.samples[-2] if len(self.samples) > 1 else sample
        passed = sample.seconds - before.seconds
        rate = (sample.heard - before.heard) / passed if passed else 0.0
        return (
            f"{rate:,.0f} events/s, {sample.agents:,} agents, {sample.rss / MIB:.0f} MiB, "
            f"{sample.blocks / 1e3:,.0f}k blocks, Redis {sample.redis_bytes / MIB:.1f} MiB {sample.redis_keys:,} keys, "
            f"lag {1e3 * sample.mirror_lag:.0f} ms, cycle {1e3 * sample.longest_cycle:.0f} ms, "
            f"{sample.prefetches:,} prefetches, {len(self.drift)} wrong"
        )

    async def _compare(self, speaker: rig.Speaker, daemon: rig.WatchedDaemon, engines: list[str]) -> None:
        """Compare every minute, and when the time is up."""
        began, left = monotonic(), self.seconds
        async with httpx.AsyncClient(base_url=daemon.api, timeout=30) as api:
            while left > 0:
                await asyncio.sleep(min(COMPARE_SECONDS, left))
                self.drift += await compare(speaker, api, engines)
                self.compared += 1
                left = self.seconds - (monotonic() - began)

    async def _all_heard(self, sampler: Sampler) -> int:
        """Return how many events the daemon has taken in, once it is all or no more come."""
        until = monotonic() + HEARD_SECONDS
        while True:
            heard = int((await sampler.counts())[HEARD])
            if heard == self.said.sent or monotonic() > until:
                return heard
            await asyncio.sleep(LOOK_SECONDS / 4)


async def _used_memory(daemon: rig.WatchedDaemon) -> int:
    async with Redis.from_url(f"unix://{daemon.valkey}") as client:
        return int((await client.info("memory"))["used_memory"])


async def _listen(daemon: rig.WatchedDaemon) -> None:
    """Come as a dashboard and as a plug-in, and go again: what is kept for them must go with them."""
    context = zmq.asyncio.Context()
    try:
        async with httpx.AsyncClient(base_url=daemon.api, timeout=None) as api:
            while True:
                await asyncio.sleep(WATCH_SECONDS)
                with context.socket(zmq.SUB) as plugin:
                    plugin.connect(daemon.dues)
                    plugin.subscribe(b"")
                    with suppress(TimeoutError):
                        async with asyncio.timeout(WATCH_SECONDS), _stream(api) as lines:
                            async for _ in lines:
                                while await plugin.poll(0):
                                    await plugin.recv_multipart()
    finally:
        context.destroy(linger=0)


@asynccontextmanager
async def _stream(api: httpx.AsyncClient) -> AsyncIterator[AsyncIterator[str]]:
    async with api.stream("GET", "/v1/stream") as answer:
        yield answer.aiter_lines()


def main() -> None:
    """Run with the flags of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--rate", type=float, default=RATE, help="events per second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a file for the figures; the picture comes beside it")
    given = parser.parse_args()
    console = Console(stderr=True, width=None if sys.stderr.isatty() else 200)
    soak = Soak(given.minutes, given.rate, given.seed)
    with (
        tempfile.TemporaryDirectory(prefix="soak-") as name,
        Progress(
            BarColumn(20), TimeElapsedColumn(), TextColumn("{task.description}"), console=console
        ) as progress,
    ):
        try:
            asyncio.run(soak.run(Path(name), progress))
        except BaseException:
            _show_log(Path(name), console)
            raise
        finally:
            _show_trace(Path(name), console)
    for line in soak.drift[:SHOWN_DIFFERENCES]:
        console.print(line, markup=False)
    console.print(_table(soak.checks))
    if given.out is not None:
        write(given.out, soak.result)
        draw(soak.samples, soak.empty, given.out.with_suffix(".svg"))
    broken = [check for check in soak.checks if check.held is False]
    for one in broken:
        console.print(f"not held: {one.name}: {one.measured}, and the bound is {one.bound}", markup=False)
    print(msgspec.json.encode(soak.figures).decode())
    sys.exit(1 if broken else 0)


def _show_log(folder: Path, console: Console) -> None:
    """Show what the daemon said last: nothing of it is left otherwise."""
    for path in folder.glob("*.log"):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        console.print("\n".join(lines[-SHOWN_LINES:]), markup=False)


def _show_trace(folder: Path, console: Console) -> None:
    for path in folder.glob("*.trace"):
        console.print(path.read_text(encoding="utf-8"), markup=False)


def _table(found: Sequence[Check]) -> Table:
    table = Table("", "measured", "bound", "")
    for one in found:
        verdict = {True: "held", False: "[red]not held[/]", None: "too short to say"}[one.held]
        table.add_row(one.name, one.measured, one.bound, verdict)
    return table


if __name__ == "__main__":
    main()
