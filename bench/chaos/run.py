"""One schedule from its first step to what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic

import httpx
import msgspec

from bench.chaos.checks import BUDGET, DIVERGENCE, LEAK, Level, Problem, Sampler, problems
from bench.chaos.engines import Engine
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
    """One fault as it was drawn, in seconds, and how often something felt it."""

    kind: str
    at: float
    seconds: float
    felt: int = 0


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
    felt = [0 for _ in schedule.faults]
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
                felt = await _happen(world, play)
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
        _drawn(schedule, felt),
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
    drawn = _drawn(schedule, [0 for _ in schedule.faults])
    return msgspec.structs.replace(drawn, divergences=[f"not played: {type(error).__name__}: {error}"])


def _drawn(schedule: Schedule, felt: Sequence[int]) -> Outcome:
    faults = [
        Struck(fault.kind, round(fault.at, 2), round(fault.seconds, 2), count)
        for fault, count in zip(schedule.faults, felt, strict=True)
    ]
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


async def _happen(world: World, play: Play) -> list[int]:
    """Let all faults happen, and play until the last is healed; return how often each was felt."""
    over = asyncio.Event()
    playing = asyncio.create_task(play.play(over))
    try:
        async with asyncio.TaskGroup() as group:
            strikes = [group.create_task(strike(world, fault)) for fault in world.schedule.faults]
    finally:
        over.set()
        await playing
    return [one.result() for one in strikes]


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
