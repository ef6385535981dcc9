"""One schedule from its first step to what came of it."""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
import shutil
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

import httpx
import msgspec

from bench.chaos.checks import BUDGET, DIVERGENCE, LEAK, Level, Problem, Sampler, problems
from bench.chaos.disks import own_mounts
from bench.chaos.engines import EMULATOR, Engine, build
from bench.chaos.faults import strike
from bench.chaos.play import PIN_SECONDS, PINNED, Play
from bench.chaos.schedule import Schedule
from bench.chaos.shim import compiled
from bench.chaos.world import World

READY_SECONDS = 120.0
CALM_STEPS = 8
REST_SECONDS = 1.5
AFTER_STEPS = 6
SETTLE_SECONDS = 75.0
"""A call to an engine that never answers is given up after 30 s, and what failed often is tried again after 30 s."""
ASK_AGAIN_SECONDS = 0.25


class Struck(msgspec.Struct, frozen=True):
    """One fault as it was drawn, in seconds."""

    kind: str
    at: float
    seconds: float


class Outcome(msgspec.Struct, frozen=True):
    """What came of one schedule; `seconds` in all, of which `settled_after` until everything was as it must be, and
    `waited_for` what came last. `unknown` says why the view knew nothing of the engine's blocks in the end, if so."""

    seed: int
    engine: str
    store: str
    through: str
    faults: list[Struck]
    calls: int = 0
    served: int = 0
    early: int = 0
    excused: int = 0
    looks: int = 0
    failed_requests: list[str] = []
    divergences: list[str] = []
    budget_violations: list[str] = []
    leaks: list[str] = []
    unknown: str | None = None
    settled_after: float = 0.0
    waited_for: str | None = None
    seconds: float = 0.0
    logs: str | None = None

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not (self.failed_requests or self.divergences or self.budget_violations or self.leaks)


async def run(schedule: Schedule, engine: Engine, folder: Path, *, mounted: bool) -> Outcome:
    """Play it beside an engine that runs, and leave the engine running."""
    began = monotonic()
    world = World(schedule, folder, engine, library=compiled(), mounted=mounted)
    found: list[Problem] = []
    async with world:
        play = Play(world)
        sampler = Sampler(world)
        try:
            found += await _begin(world, play)
            sampling = asyncio.create_task(sampler.run())
            if not found:
                await play.steps(CALM_STEPS)
                await play.calls_over()
                await sampler.rest(REST_SECONDS)
                await _happen(world, play)
                await play.steps(AFTER_STEPS)
            await play.calls_over()
            healed = monotonic()
            waited_for = None
            if not found:
                found, waited_for = await _settle(world, play, sampler.before)
            settled = monotonic() - healed
            sampling.cancel()
            with suppress(asyncio.CancelledError):
                await sampling  # Had it ended before, nobody would have looked.
            unknown = await _unknown(world)
        finally:
            await play.close()
    found += [Problem(DIVERGENCE, f"the daemon ended by itself: {words}") for words in world.exits]
    found += [Problem(BUDGET, text) for text in sampler.found]
    found += [Problem(LEAK, f"process {pid} outlives the daemon") for pid in world.left]
    if not engine.server.healthy():
        found.append(Problem(DIVERGENCE, "the engine has ended, or answers no more"))
    tally = play.tally
    if tally.lost:
        found.append(Problem(DIVERGENCE, f"of {tally.lost} calls nobody knows what came of them"))
    if not sampler.looks:
        found.append(Problem(DIVERGENCE, "nobody could look at the budgets"))
    return msgspec.structs.replace(
        _drawn(schedule),
        calls=tally.calls,
        served=tally.served,
        early=tally.early,
        excused=tally.excused,
        looks=sampler.looks,
        failed_requests=tally.failed,
        divergences=[text for kind, text in found if kind == DIVERGENCE],
        budget_violations=[text for kind, text in found if kind == BUDGET],
        leaks=[text for kind, text in found if kind == LEAK],
        unknown=unknown,
        settled_after=round(settled, 1),
        waited_for=waited_for,
        seconds=round(monotonic() - began, 1),
    )


def not_played(schedule: Schedule, error: BaseException) -> Outcome:
    """Return the outcome of a schedule that this bench could not play: it is no clean one."""
    return msgspec.structs.replace(
        _drawn(schedule), divergences=[f"not played: {type(error).__name__}: {error}"]
    )


def _drawn(schedule: Schedule) -> Outcome:
    faults = [Struck(fault.kind, round(fault.at, 2), round(fault.seconds, 2)) for fault in schedule.faults]
    return Outcome(schedule.seed, schedule.engine, schedule.store, schedule.through, faults)


async def _begin(world: World, play: Play) -> list[Problem]:
    """Wait until the daemon knows its engine and hears the play; what keeps it from that, if it never does."""
    until = monotonic() + READY_SECONDS
    with world.outage("daemon"):
        while monotonic() < until:
            with suppress(httpx.HTTPError, ValueError):
                ready = (await world.api.get(f"{world.daemon.api}/ready")).is_success
                (engine,) = (await world.get("/v1/engines"))["engines"]
                if ready and engine["known"] and play.loras <= set(engine["loras"]["registered"]):
                    await world.answered()
                    await world.pin(f"{play.simulation}/{PINNED}", PIN_SECONDS)
                    return []
            await asyncio.sleep(ASK_AGAIN_SECONDS)
    return [Problem(DIVERGENCE, "the daemon was never ready, before any fault")]


async def _happen(world: World, play: Play) -> None:
    """Let all faults happen, and play until the last is healed."""
    over = asyncio.Event()
    playing = asyncio.create_task(play.play(over))
    try:
        async with asyncio.TaskGroup() as group:
            for fault in world.schedule.faults:
                group.create_task(strike(world, fault))
    finally:
        over.set()
        await playing


async def _settle(world: World, play: Play, before: Level) -> tuple[list[Problem], str | None]:
    """Wait until nothing is wrong; return what still is when the time is over, and what was so last."""
    until, last = monotonic() + SETTLE_SECONDS, None
    while True:
        found = await problems(world, play, before)
        if not found or monotonic() > until:
            return found, last
        last = found[0].text
        await asyncio.sleep(ASK_AGAIN_SECONDS)


async def _unknown(world: World) -> str | None:
    with suppress(httpx.HTTPError, ValueError):
        (engine,) = (await world.get("/v1/engines"))["engines"]
        return None if engine["known"] else str(engine["unknown_why"])
    return "not to be asked"


@contextmanager
def _folder(schedule: Schedule) -> Iterator[Path]:
    """A short one, as sockets' paths must be; gone at the end."""
    with tempfile.TemporaryDirectory(prefix=f"ssc{schedule.seed}-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def workers(count: int) -> ProcessPoolExecutor:
    """Return so many processes of their own, each with its own mounts."""
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))


def play_emulated(schedules: Sequence[Schedule], at_once: int) -> Iterator[Outcome]:
    """Play schedules side by side, each beside an emulated engine of its own; yield each outcome as it comes."""
    with workers(at_once) as pool:
        playing = {pool.submit(_run_emulated, schedule): schedule for schedule in schedules}
        for done in as_completed(playing):
            error = done.exception()
            if error is not None:
                traceback.print_exception(error)
            yield done.result() if error is None else not_played(playing[done], error)


def play_real(schedules: Sequence[Schedule]) -> Iterator[Outcome]:
    """Play schedules beside one real engine, one after the other; it is started anew where it has ended."""
    mounted = _mounts()
    with tempfile.TemporaryDirectory(prefix="sscr-", ignore_cleanup_errors=True) as root:
        engine = build(schedules[0].engine, Path(root))
        with engine.server:
            for schedule in schedules:
                with _folder(schedule) as folder:
                    outcome = asyncio.run(run(schedule, engine, folder, mounted=mounted))
                    shutil.copy(engine.server.log, folder)
                    yield _with_logs(outcome, schedule, folder)
                if not engine.server.healthy():
                    engine.server.restart()


def _run_emulated(schedule: Schedule) -> Outcome:
    # The engine sees what is mounted later, if it is a child of whoever mounts.
    mounted = _mounts()
    with _folder(schedule) as folder:
        engine = build(EMULATOR, folder)
        with engine.server:
            outcome = asyncio.run(run(schedule, engine, folder, mounted=mounted))
        return _with_logs(outcome, schedule, folder)


def _with_logs(outcome: Outcome, schedule: Schedule, folder: Path) -> Outcome:
    """Keep what the daemon and the engine said where something was found."""
    if outcome.clean:
        return outcome
    kept = Path("out/chaos") / f"{schedule.engine}-{schedule.seed}"
    kept.mkdir(parents=True, exist_ok=True)
    for log in folder.rglob("*.log"):
        shutil.copy(log, kept / log.name)
    return msgspec.structs.replace(outcome, logs=str(kept))


@functools.cache
def _mounts() -> bool:
    """Once a process: its mounts are its own from then on."""
    return own_mounts() is None
