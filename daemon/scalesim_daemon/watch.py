"""Watches one engine: probes it, hears what it tells, measures its load, and looks whether others use it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from scalesim_adapters.base import EngineAdapter, EngineError
from scalesim_daemon.plan import Step
from scalesim_daemon.view import EngineView

PROBE_SECONDS = 5.0
RETRY_SECONDS = 0.5
PRESSURE_SECONDS = 0.25
# While work of ours is in an engine that others use unannounced: they may be waiting for it. To look costs the engine's
# server some milliseconds.
WORKING_PRESSURE_SECONDS = 0.02
FRESH_PRESSURE_SECONDS = 0.02
FEED_LAG_SECONDS = 0.1
# What a simulation announces may reach the engine before it reaches us.
ANNOUNCED_WITHIN_SECONDS = 0.5


class Watch:
    """Keeps the view of one engine fresh.

    `changed` is called whenever something becomes known, and `found` when an engine is there of which nothing is known.
    `working` says whether a request of ours is in the engine; it is let go of by `cancel` when requests of others wait,
    which returns whether that stops anything.
    """

    def __init__(
        self,
        adapter: EngineAdapter,
        view: EngineView,
        *,
        changed: Callable[[], None],
        found: Callable[[], None],
        working: Callable[[], bool],
        cancel: Callable[[str], bool],
    ) -> None:
        self._adapter = adapter
        self._view = view
        self._changed = changed
        self._found = found
        self._working = working
        self._cancel = cancel
        self._pressure_at = -math.inf
        self._met: tuple[int, float] | None = None
        self._doubt = asyncio.Event()
        self._heard = asyncio.Event()
        self._used = asyncio.Event()

    async def run(self) -> None:
        """Probe, listen and measure until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._probe_forever())
            group.create_task(self._listen())
            group.create_task(self._follow_uses())
            group.create_task(self._measure_forever())
            group.create_task(self._look_for_others_forever())

    def lost(self, why: str) -> None:
        """A request found the engine unreachable: it is looked for at once."""
        self._doubt.set()
        if self._view.unreachable(why):
            self._changed()

    def finished(self, agent: str, lora_name: str | None) -> None:
        """An announced request of the agent has ended: what that did to LoRAs or slots is asked where the engine
        tells."""
        served = self._view.finished(agent, lora_name)
        if served and (self._view.has_slots or (lora_name is not None and self._view.loras.exact)):
            self._used.set()

    async def is_quiet(self) -> bool:
        """Whether the engine serves nobody, as of a moment ago at most."""
        if monotonic() - self._pressure_at > FRESH_PRESSURE_SECONDS:
            await self._measure()
        pressure = self._view.quiet.pressure
        return pressure is not None and pressure.running == 0 and pressure.waiting == 0

    async def until_told(self, step: Step) -> None:
        """Wait until the feed has told of what a step loaded: planned before, it would be asked for again. What has
        slots is asked for them, before others use them too."""
        if self._view.has_slots:
            self._used.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(FEED_LAG_SECONDS):
                while (tree := self._view.tree) is not None and tree.resident_blocks(step.key) < step.stop:
                    self._heard.clear()
                    await self._heard.wait()

    async def _probe_forever(self) -> None:
        while True:
            try:
                info = await self._adapter.probe()
                fresh = self._view.probed(info)
                self._view.told(await self._adapter.inventory())
            except EngineError as error:
                self.lost(str(error))
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if fresh:
                self._found()
            self._changed()
            await self._doubted(PROBE_SECONDS)

    async def _doubted(self, within: float) -> None:
        """Wait until a call found the engine unreachable, `within` seconds at most."""
        self._doubt.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._doubt.wait()
            await asyncio.sleep(RETRY_SECONDS)

    async def _listen(self) -> None:
        async for event in self._adapter.events():
            self._view.happened(event)
            self._heard.set()
            self._changed()

    async def _follow_uses(self) -> None:
        while True:
            await self._used.wait()
            self._used.clear()
            try:
                self._view.told(await self._adapter.inventory())
            except EngineError as error:
                self.lost(str(error))
            self._changed()
            await asyncio.sleep(FEED_LAG_SECONDS)

    async def _measure_forever(self) -> None:
        while True:
            watched = self._working() and self._view.quiet.shared(monotonic())
            every = WORKING_PRESSURE_SECONDS if watched else PRESSURE_SECONDS
            if self._view.reachable and monotonic() - self._pressure_at >= every:
                await self._measure()
            await asyncio.sleep(WORKING_PRESSURE_SECONDS)

    async def _look_for_others_forever(self) -> None:
        """Beside measuring, which an engine may answer only when its step is over."""
        while True:
            if self._working():
                await self._look_for_others()
            self._judge_others()
            shared = self._view.quiet.shared(monotonic())
            await asyncio.sleep(WORKING_PRESSURE_SECONDS if shared else PRESSURE_SECONDS)

    async def _look_for_others(self) -> None:
        """Let go of the engine when its server has more than our own request: where others use it as soon as one look
        shows that, else when two do, since what has just been answered may still be counted."""
        announced = self._view.announced
        looks = 1 if self._view.quiet.shared(monotonic()) else 2
        for look in range(looks):
            if look:
                await asyncio.sleep(WORKING_PRESSURE_SECONDS)
            try:
                serving = await self._adapter.serving()
            except EngineError as error:
                self.lost(str(error))
                return
            if serving is None or serving <= 1:
                return
        # Whoever is met again and again is judged by the first time.
        if self._cancel("requests wait") and self._met is None:
            self._met = announced, monotonic()

    def _judge_others(self) -> None:
        """Whoever was met is a stranger, unless a request is announced soon after."""
        if self._met is not None and monotonic() - self._met[1] >= ANNOUNCED_WITHIN_SECONDS:
            if self._view.announced == self._met[0]:
                self._view.quiet.met_others(monotonic())
            self._met = None

    async def _measure(self) -> None:
        try:
            pressure = await self._adapter.pressure()
        except EngineError as error:
            self.lost(str(error))
            return
        self._pressure_at = monotonic()
        if self._view.measured(pressure, int(self._working()), self._pressure_at):
            self._cancel("requests wait")
