"""When a driver lets go of speculative work: what the engine counts is told from what is our own."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import Any, cast

import pytest

from scalesim_adapters.base import (
    Busy,
    Capability,
    CapacityExceeded,
    EngineAdapter,
    EngineInfo,
    MemoryKind,
    Outcome,
    Pressure,
    Rejected,
)
from scalesim_daemon.driver import Driver
from scalesim_daemon.loras import LoraLibrary, NoRoom
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.population import Agent, Memory, Population
from scalesim_daemon.view import EngineView
from tests.daemon.live import until

INFO = EngineInfo(
    engine="vllm",
    version="0",
    incarnation="1",
    base_models=("base",),
    capabilities=dict.fromkeys(MemoryKind, Capability.LOAD),
    block_size=4,
    device_blocks=8,
)
LOAD = Step(Action.LOAD, MemoryKind.PREFIX_KV, "sim/a", 0, 1, 1.0, "a test")


class Engine:
    """Works on a load until told that it is done; says of its requests what it is told to say."""

    def __init__(self) -> None:
        self.counts = Pressure(0, 0, 0)
        self.looks = asyncio.Event()
        self.working = asyncio.Event()
        self.done = asyncio.Event()
        self.refusal: Exception | None = None
        self.others: int | None = None
        self.counted = asyncio.Event()
        self.left = False

    async def is_looked_at(self) -> None:
        """Wait until one look is over: that is when the next one begins."""
        for _ in range(2):
            self.looks.clear()
            await self.looks.wait()

    async def probe(self) -> EngineInfo:
        return INFO

    async def inventory(self) -> Any:
        await asyncio.Event().wait()

    async def events(self) -> Any:
        await asyncio.Event().wait()
        yield

    async def serving(self) -> int | None:
        self.counted.set()
        return self.others

    async def pressure(self) -> Pressure:
        self.looks.set()
        return self.counts

    async def load(self, *_: Any, deadline: float) -> Outcome:
        if self.refusal is not None:
            raise self.refusal
        self.working.set()
        try:
            await self.done.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)  # as long as a connection takes to close
            self.left = True
            raise
        return Outcome(0.0, 4)

    async def close(self) -> None:
        pass


@asynccontextmanager
async def driving(
    engine: Engine, library: LoraLibrary | None = None, wake: Callable[[], None] = lambda: None
) -> AsyncIterator[tuple[Driver, asyncio.Queue[str]]]:
    """Run a driver that has looked at the engine once and knows the prefix of `sim/a`; with its steps' results."""
    view, results = EngineView("engine", quiet_share=0.02), asyncio.Queue[str]()
    driver = Driver(
        cast(EngineAdapter, engine),
        view,
        Population(),
        cast(LoraLibrary, library),
        wake,
        lambda record: results.put_nowait(record.result),
    )
    view.probed(INFO)
    view.bound("sim/a", Memory(token_ids=cast(Any, (1, 2, 3, 4))))
    running = asyncio.create_task(driver.run())
    async with asyncio.timeout(10):
        await engine.is_looked_at()
        yield driver, results
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def until_idle(driver: Driver) -> None:
    async def idle() -> bool:
        return not driver.in_flight

    await until(idle)


@pytest.mark.parametrize(
    ("counts", "result"),
    [
        (Pressure(0, 1, 0), "done"),
        (Pressure(1, 0, 0), "done"),
        (Pressure(1, 1, 0), "cancelled: requests wait"),
        (Pressure(0, 2, 0), "cancelled: requests wait"),
    ],
)
def test_speculative_work_gives_way_to_others_and_not_to_itself(counts: Pressure, result: str) -> None:
    async def scene() -> None:
        engine = Engine()
        async with driving(engine) as (driver, results):
            driver.pursue([LOAD], [], announced=0)
            await engine.working.wait()
            engine.counts = counts
            await engine.is_looked_at()
            engine.done.set()
            assert await results.get() == result
            if result == "done":
                assert driver.view.quiet.may_start(0, 0.1, 0.0), (
                    "what was our own keeps nothing from starting"
                )

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("others", "result"), [(None, "done"), (0, "done"), (1, "done"), (2, "cancelled: requests wait")]
)
def test_speculative_work_gives_way_as_soon_as_the_server_has_more(others: int | None, result: str) -> None:
    async def scene() -> None:
        engine = Engine()
        async with driving(engine) as (driver, results):
            engine.others = others
            driver.pursue([LOAD], [], announced=0)
            await engine.working.wait()
            await engine.counted.wait()
            await engine.is_looked_at()
            engine.done.set()
            assert await results.get() == result

    asyncio.run(scene())


@pytest.mark.parametrize("announced", [True, False])
def test_who_is_met_beside_our_work_is_somebody_else_unless_announced_in_time(announced: bool) -> None:
    async def scene() -> None:
        engine = Engine()
        async with driving(engine) as (driver, results):
            engine.others = 2
            driver.pursue([LOAD], [], announced=0)
            assert await results.get() == "cancelled: requests wait"
            if announced:
                driver.view.started(Agent("sim/b", name="b"))

            async def judged() -> bool:
                return driver.watch._met is None

            await until(judged)
            assert driver.view.quiet.shared(monotonic()) is not announced

    asyncio.run(scene())


def test_who_is_met_again_and_again_is_noticed() -> None:
    """Each time the work that is started anew gives way, and none of it is counted as finished."""

    async def scene() -> None:
        engine = Engine()
        engine.others = 2
        async with driving(engine) as (driver, results):
            while not driver.view.quiet.shared(monotonic()):
                driver.pursue([LOAD], [], 0)
                assert await results.get() == "cancelled: requests wait"
                await until_idle(driver)

    asyncio.run(scene())


def test_letting_go_is_not_cut_off_by_letting_go_once_more() -> None:
    async def scene() -> None:
        engine = Engine()
        async with driving(engine) as (driver, results):
            driver.pursue([LOAD], [], announced=0)
            await engine.working.wait()
            driver.cancel("requests wait")
            await asyncio.sleep(0)
            driver.cancel("an invocation started")
            assert await results.get() == "cancelled: requests wait"
            assert engine.left

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("refusal", "result", "failed"),
    [
        (Busy("a request uses it"), "put off: a request uses it", 0),
        (CapacityExceeded("all slots are in use"), "put off: all slots are in use", 0),
        (NoRoom("staging is full"), "put off: staging is full", 0),
        (Rejected("no such thing"), "failed: no such thing", 1),
    ],
)
def test_what_is_in_use_is_put_off_and_not_a_failure(refusal: Exception, result: str, failed: int) -> None:
    async def scene() -> None:
        engine = Engine()
        engine.refusal = refusal
        async with driving(engine) as (driver, results):
            driver.pursue([LOAD], [], announced=0)
            assert await results.get() == result
            assert driver.view.ledger.failed == failed

            await until_idle(driver)
            driver.pursue([LOAD], [], announced=0)
            assert driver.in_flight == (), "either way it is left alone for a while"

    asyncio.run(scene())


def test_a_lora_that_can_not_be_loaded_can_still_be_unstaged(tmp_path: Path) -> None:
    load, unstage = (
        Step(action, MemoryKind.LORA, "lora", 0, 1, 1.0, "a test") for action in (Action.LOAD, Action.UNSTAGE)
    )

    async def scene() -> None:
        engine = Engine()
        ended = asyncio.Event()
        async with driving(
            engine, library=LoraLibrary(tmp_path / "links", tmp_path / "staging", 0), wake=ended.set
        ) as (driver, results):
            driver.pursue([], [load], announced=0)
            assert await results.get() == "failed: LoRA lora is not linked"
            while driver.in_flight:
                ended.clear()
                await ended.wait()
            driver.pursue([], [unstage, load], announced=0)
            assert driver.in_flight == (unstage,)

    asyncio.run(scene())


@pytest.mark.parametrize(
    ("urgent", "result"),
    [
        ([], "cancelled: an agent was woken"),
        (["sim/b"], "cancelled: an agent was woken"),
        (["sim/a"], "done"),
    ],
)
def test_an_urgent_agent_stops_work_for_others_and_only_what_is_due_when_it_is_done_goes_on(
    urgent: list[str], result: str
) -> None:
    async def scene() -> None:
        engine = Engine()
        ended = asyncio.Event()
        async with driving(engine, wake=ended.set) as (driver, results):
            driver.pursue([LOAD], [], announced=0)
            await engine.working.wait()
            driver.give_way("an agent was woken", urgent)
            engine.done.set()
            assert await results.get() == result
            while driver.in_flight:
                ended.clear()
                await ended.wait()
            driver.pursue([LOAD], [], announced=0)
            assert driver.in_flight == ()
            due = replace(LOAD, seconds=driver.view.takes(LOAD))
            assert 0 < due.seconds < LOAD.seconds
            driver.pursue([LOAD, due], [], announced=0)
            assert driver.in_flight == (due,)

    asyncio.run(scene())


def test_in_a_hurry_a_load_that_is_late_takes_the_touches_along_that_it_needs() -> None:
    near, far = replace(LOAD, seconds=0.05), replace(LOAD, key="sim/c", seconds=9.0)
    touch = replace(LOAD, action=Action.TOUCH, key="sim/b", seconds=0.08)

    async def scene() -> None:
        async with driving(Engine()) as (driver, _):
            driver.view.took(replace(LOAD, start=0, stop=1), 0.1)
            driver.view.took(replace(LOAD, start=0, stop=1), 0.1)
            driver.give_way("an agent was woken", ["sim/z"])
            driver.pursue([touch, far], [], announced=0)
            assert driver.in_flight == ()
            driver.pursue([touch, near], [], announced=0)
            assert driver.in_flight == (touch,)

    asyncio.run(scene())


def test_without_the_touch_that_it_needs_a_load_waits() -> None:
    touch = replace(LOAD, action=Action.TOUCH, key="sim/b")

    async def scene() -> None:
        async with driving(Engine()) as (driver, _):
            driver._backoff.put_off(touch, monotonic())
            driver.pursue([touch, LOAD], [], announced=0)
            assert driver.in_flight == ()
            driver.pursue([LOAD], [], announced=0)
            assert driver.in_flight == (LOAD,)

    asyncio.run(scene())


def test_a_touch_that_no_load_needs_is_done_when_there_is_time() -> None:
    touch = replace(LOAD, action=Action.TOUCH)

    async def scene() -> None:
        async with driving(Engine()) as (driver, _):
            driver.give_way("an agent was woken", ["sim/z"])
            driver.pursue([touch], [], announced=0)
            assert driver.in_flight == ()
        async with driving(Engine()) as (driver, _):
            driver.pursue([touch], [], announced=0)
            assert driver.in_flight == (touch,)

    asyncio.run(scene())


def test_the_view_knows_whose_request_is_ours() -> None:
    async def scene() -> None:
        engine = Engine()
        async with driving(engine) as (driver, results):
            driver.pursue([LOAD], [], announced=0)
            assert driver.view.ours == ("sim/a", math.inf)
            engine.done.set()
            assert await results.get() == "done"
            await until_idle(driver)
            assert driver.view.ours[1] < math.inf, "what the feed tells later was a call"

    asyncio.run(scene())
