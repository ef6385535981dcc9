"""`python -m bench.fleet.run SEED KIND...`: one schedule from its first step to what came of it, printed as JSON.

To be started by what `bench.fleet.net.inside` returns.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from time import monotonic

import httpx
import msgspec

from bench.fleet.engine import read
from bench.fleet.faults import strike
from bench.fleet.judge import able_since, overlapping, takeovers
from bench.fleet.play import Village
from bench.fleet.schedule import DAEMONS, ENGINES, LEASE_SECONDS, Kind, Schedule, draw
from bench.fleet.world import World
from scalesim_daemon.fleet.lease import Terms

CALM_SECONDS = LEASE_SECONDS
AFTER_SECONDS = 2.5 * LEASE_SECONDS
SETTLE_SECONDS = 20.0
TARGET = 2.0
"""Lease times that a takeover may take."""
LOGS = Path("out/fleet")


class Struck(msgspec.Struct, frozen=True):
    """One fault as it was drawn, in seconds."""

    kind: str
    daemon: str
    engine: str
    at: float
    seconds: float


class Outcome(msgspec.Struct, frozen=True):
    """What came of one schedule. `takeovers` in seconds; `held_up` is the longest that the bench itself got no turn,
    and `settled_after` how long after the last step all daemons knew all dues."""

    seed: int
    layout: str
    faults: list[Struck]
    acts: int = 0
    calls: int = 0
    takeovers: list[float] = []
    failed_requests: list[str] = []
    overlapping_acts: list[str] = []
    stale_dues: list[str] = []
    silent_engines: list[str] = []
    daemons_ended: list[str] = []
    held_up: float = 0.0
    settled_after: float = 0.0
    seconds: float = 0.0
    logs: str | None = None

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        found = (self.failed_requests, self.overlapping_acts, self.stale_dues, self.silent_engines)
        return not any(found) and not self.daemons_ended


async def run(schedule: Schedule, folder: Path) -> Outcome:
    """Play it in this process's own network."""
    began = monotonic()
    world = World(schedule, folder)
    async with world.open():
        villages = [
            Village(f"village{name}", world.daemons[name].feed, world.engines, world.client)
            for name in DAEMONS
        ]
        over = asyncio.Event()
        playing = [asyncio.create_task(village.play(over)) for village in villages]
        await asyncio.sleep(CALM_SECONDS)
        async with asyncio.TaskGroup() as group:
            for fault in schedule.faults:
                group.create_task(strike(world, fault))
        await asyncio.sleep(AFTER_SECONDS)
        over.set()
        await asyncio.gather(*playing)
        ended = monotonic()
        stale = await _settle(world, villages)
        settled = monotonic() - ended
        for village in villages:
            await village.close()
    return _judged(world, villages, ended, drawn(schedule), stale, settled, monotonic() - began)


def drawn(schedule: Schedule) -> Outcome:
    """Return an outcome of which nothing is known but what was drawn."""
    faults = [
        Struck(fault.kind, fault.daemon, fault.engine, round(fault.at, 2), round(fault.seconds, 2))
        for fault in schedule.faults
    ]
    return Outcome(schedule.seed, schedule.layout, faults)


def _judged(
    world: World,
    villages: list[Village],
    ended: float,
    outcome: Outcome,
    stale: list[str],
    settled: float,
    seconds: float,
) -> Outcome:
    beside: list[str] = []
    silent: list[str] = []
    taken: list[float] = []
    count = 0
    for engine in ENGINES:
        acts, leases = read(world.acts(engine)), world.leases[engine].values()
        count += len(acts)
        beside += [
            f"{act.daemon} on {engine} under {act.token}, {act.at - ended:.2f} s after the last step"
            for act in overlapping(acts, leases, Terms.of(LEASE_SECONDS).wait)
        ]
        taken += [one.seconds for one in takeovers(engine, acts, leases, world.blows, DAEMONS)]
        last = max((act.at for act in acts), default=0.0)
        quiet = ended - max(last, able_since(engine, ended, world.blows, DAEMONS))
        if quiet > TARGET * LEASE_SECONDS:
            silent.append(f"nobody acts on {engine} in the last {quiet:.1f} s")
    return msgspec.structs.replace(
        outcome,
        acts=count,
        calls=sum(village.calls for village in villages),
        takeovers=[round(one, 2) for one in taken],
        failed_requests=[text for village in villages for text in village.failed],
        overlapping_acts=beside,
        stale_dues=stale,
        silent_engines=silent,
        daemons_ended=world.exits,
        held_up=round(world.held_up, 2),
        settled_after=round(settled, 1),
        seconds=round(seconds, 1),
    )


async def _settle(world: World, villages: list[Village]) -> list[str]:
    """Wait until every daemon knows every due; return what still differs when the time is over."""
    until = monotonic() + SETTLE_SECONDS
    while True:
        found: list[str] = []
        for daemon in DAEMONS:
            for village in villages:
                try:
                    agents = await world.agents(daemon, village.name)
                except httpx.HTTPError as error:
                    found.append(f"{daemon}: {type(error).__name__}: {error}")
                else:
                    found += [f"{daemon}: {text}" for text in village.differs(agents)]
        if not found or monotonic() > until:
            return found
        await asyncio.sleep(0.1)


def main() -> None:
    """Play the schedule of a seed."""
    schedule = draw(int(sys.argv[1]), [Kind(kind) for kind in sys.argv[2:]])
    with tempfile.TemporaryDirectory(prefix="ssf-", ignore_cleanup_errors=True) as text:
        folder = Path(text)
        outcome = asyncio.run(run(schedule, folder))
        if not outcome.clean:
            outcome = msgspec.structs.replace(outcome, logs=str(_kept(folder, schedule.seed)))
    sys.stdout.buffer.write(msgspec.json.encode(outcome) + b"\n")


def _kept(folder: Path, seed: int) -> Path:
    kept = LOGS / str(seed)
    kept.mkdir(parents=True, exist_ok=True)
    for path in (*folder.rglob("*.log"), *folder.rglob("*.acts")):
        with suppress(OSError):
            shutil.copy(path, kept / f"{path.parent.name if path.parent != folder else 'engine'}-{path.name}")
    return kept


if __name__ == "__main__":
    main()
