"""The engine's loop: one step after another, each taking the time that the cost model says."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from itertools import count
from time import monotonic
from typing import Generic, TypeVar

from scalesim_adapters.base import FirstTokens
from scalesim_adapters.emulator.cache import PrefixCache
from scalesim_adapters.emulator.chain import Chain
from scalesim_adapters.emulator.config import EmulatorConfig
from scalesim_adapters.emulator.events import KVEvent
from scalesim_adapters.emulator.lora_files import read_lora
from scalesim_adapters.emulator.loras import Lora, LoraPlaces, LoraUnreadable
from scalesim_adapters.emulator.scheduler import Output, Scheduler, Sequence

T = TypeVar("T")


class EngineDead(Exception):
    """The engine has ended, as vLLM's does after an error in a step."""


class Gate:
    """Lets steps through: all of them, or a counted few."""

    def __init__(self) -> None:
        self._permits: int | None = None
        self._changed = asyncio.Event()

    def open(self) -> None:
        """Let every step through."""
        self._set(None)

    def admit(self, steps: int) -> None:
        """Let only `steps` more through; 0 stalls the engine."""
        self._set(steps)

    async def passed(self) -> None:
        """Wait until a step may start."""
        while self._permits == 0:
            self._changed.clear()
            await self._changed.wait()
        if self._permits is not None:
            self._permits -= 1

    def _set(self, permits: int | None) -> None:
        self._permits = permits
        self._changed.set()


class Ticket:
    """A request's place in the engine; yields its tokens, raises `EngineDead` where the engine ends first."""

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self.submitted_at = monotonic()
        self._outputs: asyncio.Queue[Output | None] = asyncio.Queue()

    def put(self, output: Output | None) -> None:
        """Hand over a token, or None when no more will come."""
        self._outputs.put_nowait(output)

    async def __aiter__(self) -> AsyncIterator[Output]:
        while (output := await self._outputs.get()) is not None:
            yield output
            if output.finished:
                return
        raise EngineDead("EngineCore encountered an issue. See stack trace (above) for the root cause.")


class _Call(Generic[T]):
    """Work to do between two steps: returns its result and the emulated seconds that it takes."""

    def __init__(self, work: Callable[[], tuple[T, float]]) -> None:
        self.work = work
        self.done: asyncio.Future[T] = asyncio.get_running_loop().create_future()


class Engine:
    """Cache, LoRAs, requests and the loop over them. `publish` is given the events of each step, if any.

    To be made, used and run on one asyncio loop.
    """

    def __init__(self, config: EmulatorConfig, publish: Callable[[list[KVEvent]], None]) -> None:
        self.config = config
        self.cache = PrefixCache(config.blocks, config.block_size)
        self.scheduler = Scheduler(config, self.cache)
        self.places = LoraPlaces(
            config.max_loras, config.max_cpu_loras, lambda path: read_lora(path, config.max_lora_rank)
        )
        self.loras: dict[str, Lora] = {}
        self.gate = Gate()
        self.dead = False
        self.first_tokens = FirstTokens(0, 0.0)
        self._publish = publish
        self._arrivals = count()
        self._lora_ids = count(1)
        self._tickets: dict[Sequence, Ticket] = {}
        self._aborted: list[Sequence] = []
        self._calls: deque[_Call[bool]] = deque()
        self._work = asyncio.Event()

    def submit(
        self, chain: Chain, max_tokens: int, *, priority: int = 0, report_hits: bool = False
    ) -> Ticket:
        """Let a request wait for its first step. Raises `EngineDead`."""
        if self.dead:
            raise EngineDead("EngineCore encountered an issue. See stack trace (above) for the root cause.")
        sequence = Sequence(next(self._arrivals), chain, max_tokens, priority, report_hits)
        self._tickets[sequence] = ticket = Ticket(sequence)
        self.scheduler.add(sequence)
        self._work.set()
        return ticket

    def abort(self, ticket: Ticket) -> None:
        """Drop a request before the next step; what it computed stays cached. Harmless where it has ended."""
        if self._tickets.pop(ticket.sequence, None):
            self._aborted.append(ticket.sequence)
            self._work.set()

    async def load_lora(self, name: str, path: str) -> None:
        """Bring a LoRA into a slot between two steps, then name it. Raises `LoraUnreadable`."""
        lora = Lora(next(self._lora_ids), name, path)
        await self._between_steps(lambda: (True, self._use(lora)))
        self.loras[name] = lora

    def unload_lora(self, name: str) -> None:
        """Drop a name; its weights stay until they are the least recently used. Raises `KeyError`."""
        del self.loras[name]

    async def clear_cache(self) -> bool:
        """Forget all cached blocks, which the next step announces; False where a request holds some."""
        return await self._between_steps(lambda: (self.cache.clear(), 0.0))

    async def run(self) -> None:
        """Step until cancelled. Raises `EngineDead` where a request's LoRA can't be read again."""
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                while await self._turn():
                    pass
        except LoraUnreadable as error:
            raise EngineDead(str(error)) from error
        finally:
            self._end()

    async def _turn(self) -> bool:
        """Do what waits between steps, then one step; tell whether there was one."""
        await self.gate.passed()
        for sequence in self._aborted:
            self.scheduler.abort(sequence)
        self._aborted.clear()
        while self._calls:
            await self._answer(self._calls.popleft())
        step = self.scheduler.schedule()
        if not step.sequences:
            return False
        seconds = self.config.cost.of_step(step.prefill_tokens, step.decodes)
        seconds += sum(self._use(lora) for lora in step.loras)
        await self._pass_time(seconds)
        outputs = self.scheduler.finish(step)
        if events := self.cache.drain():
            self._publish(events)
        for output in outputs:
            self._deliver(output)
        return True

    async def _between_steps(self, work: Callable[[], tuple[bool, float]]) -> bool:
        call = _Call(work)
        self._calls.append(call)
        self._work.set()
        return await call.done

    async def _answer(self, call: _Call[bool]) -> None:
        try:
            result, seconds = call.work()
        except LoraUnreadable as error:
            call.done.set_exception(error)
            return
        await self._pass_time(seconds)
        if not call.done.done():
            call.done.set_result(result)

    def _use(self, lora: Lora) -> float:
        size = self.places.use(lora)
        return 0.0 if size is None else self.config.cost.of_lora_load(size)

    def _deliver(self, output: Output) -> None:
        ticket = self._tickets.get(output.sequence)
        if ticket is None:
            return
        if output.sequence.outputs == 1:
            told, waited = self.first_tokens, monotonic() - ticket.submitted_at
            self.first_tokens = FirstTokens(told.count + 1, told.seconds + waited)
        if output.finished:
            del self._tickets[output.sequence]
        ticket.put(output)

    async def _pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self.config.time_scale)

    def _end(self) -> None:
        self.dead = True
        for ticket in self._tickets.values():
            ticket.put(None)
        self._tickets.clear()
        while self._calls:
            call = self._calls.popleft()
            if not call.done.done():
                call.done.set_exception(EngineDead("the engine has ended"))
