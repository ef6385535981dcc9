"""Drives one engine: carries out the plan's steps, few at a time and cancellable."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from time import monotonic, time

import structlog

from scalesim_adapters.base import (
    Busy,
    CapacityExceeded,
    EngineAdapter,
    EngineError,
    EngineUnavailable,
    MemoryKind,
    NotFound,
    Revoked,
    Unsupported,
)
from scalesim_adapters.http import fence, may_send
from scalesim_daemon.acts import Acts
from scalesim_daemon.backoff import Backoff
from scalesim_daemon.fleet import lease_clock
from scalesim_daemon.loras import LoraLibrary, NoRoom
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.population import Memory, Population
from scalesim_daemon.records import Record
from scalesim_daemon.strangers import Strangers
from scalesim_daemon.view import EngineView
from scalesim_daemon.watch import FEED_LAG_SECONDS, Watch

# How long an agent that was woken may take to call.
URGENT_SECONDS = 0.5
KEPT_RECORDS = 1000
REQUESTS = (Action.LOAD, Action.TOUCH)

log = structlog.get_logger(__name__)


class Driver:
    """One engine's adapter, view, watch and work in flight.

    Work runs on tracks, one step at a time on each: `engine` for speculative requests, `sessions` for demotions,
    `names` for registering LoRAs, `files` for staging, and `model`, beside which nothing runs. `wake` is called
    whenever something ends or becomes known.
    """

    def __init__(
        self,
        adapter: EngineAdapter,
        view: EngineView,
        population: Population,
        library: LoraLibrary,
        wake: Callable[[], None],
        record: Callable[[Record], None],
    ) -> None:
        self.adapter = adapter
        self.view = view
        self.records: deque[Record] = deque(maxlen=KEPT_RECORDS)
        self._population = population
        view.strangers = Strangers(population.agents)
        self.acts = Acts(adapter, view, population, library)
        self._wake = wake
        self._record = record
        self._tracks: dict[str, tuple[Step, asyncio.Task[None]]] = {}
        self._backoff = Backoff()
        self._urgent_until = -math.inf
        self._texts: set[asyncio.Task[None]] = set()
        self._releases: set[asyncio.Task[None]] = set()
        self.watch = Watch(
            adapter,
            view,
            changed=wake,
            found=self._bind_all,
            working=lambda: "engine" in self._tracks,
            cancel=self.cancel,
        )

    async def run(self) -> None:
        """Watch the engine until cancelled, and stop what is under way."""
        try:
            await self.watch.run()
        finally:
            await self._stop()

    # Memory of agents

    def _bind_all(self) -> None:
        for agent in self._population.agents.values():
            if agent.memory is not None:
                self.bind(agent.key, agent.memory)

    def bind(self, agent: str, memory: Memory) -> None:
        """Make an agent's declared prefix known to the view; text is turned into tokens by the engine."""
        self.view.bound(agent, memory)
        if memory.text is not None or memory.messages is not None:
            task = asyncio.create_task(self._tokenize(agent, memory))
            self._texts.add(task)
            task.add_done_callback(self._texts.discard)

    async def _tokenize(self, agent: str, memory: Memory) -> None:
        tokens: Sequence[int] | None = None
        try:
            tokens = await self.adapter.tokenize(
                self.acts.model(memory), text=memory.text, messages=memory.messages
            )
        except EngineError as error:
            if not (isinstance(error, Unsupported) and self.view.has_slots):
                log.warning("prefix not tokenized", engine=self.view.name, agent=agent, error=str(error))
                return
        known = self._population.agents.get(agent)
        if known is not None and known.memory == memory:
            self.view.tokenized(agent, memory, tokens)
            self._wake()

    # Whether anything may be done

    @property
    def may_act(self) -> bool:
        """Whether this daemon may act on the engine now."""
        return self.view.driven

    @property
    def why_not(self) -> str | None:
        """Return why this daemon may not act on the engine, None where it may."""
        lease = self.view.lease
        return None if lease is None else lease.why_not(lease_clock.now())

    @property
    def busy(self) -> bool:
        """Whether anything of ours is under way."""
        return bool(self._tracks or self._releases)

    def let_go(self, why: str) -> None:
        """Cut off all that is under way: another daemon is about to act."""
        for task in (*(task for _, task in self._tracks.values()), *self._releases):
            if not task.cancelling():
                task.cancel(why)

    # Carrying out a plan

    @property
    def in_flight(self) -> tuple[Step, ...]:
        """The steps being carried out now."""
        return tuple(step for step, _ in self._tracks.values())

    def brings(self, lora: str, planned: Iterable[Step]) -> bool:
        """Whether a LoRA is being brought, or is `planned` to be registered and not put off."""
        if any(step.kind is MemoryKind.LORA and step.key == lora for step in self.in_flight):
            return True
        if not self.may_act:
            return False
        now = monotonic()
        registering = (step for step in planned if step.action is Action.REGISTER and step.key == lora)
        return any(not self._backoff.holds(step, now) for step in registering)

    def pursue(self, blocks: Sequence[Step], loras: Sequence[Step], announced: int) -> None:
        """Start what of the plan may start now, while `announced` invocations are being served."""
        if "model" in self._tracks or not self.may_act:
            return
        self._start_first("names", [step for step in loras if step.action is Action.REGISTER])
        self._start_first("files", [step for step in loras if step.action in (Action.STAGE, Action.UNSTAGE)])
        self._start_first("sessions", [step for step in blocks if step.action is Action.DEMOTE])
        requests = [step for step in (*loras, *blocks) if step.action is Action.EVICT]
        requests += self._ready(
            [
                *(step for step in loras if step.action in REQUESTS),
                *(step for step in blocks if step.action in REQUESTS and self._takes_no_slot(step)),
            ]
        )
        seconds = next((self.view.takes(step) for step in requests if step.action is Action.LOAD), 0.0)
        if self.view.quiet.may_start(announced, seconds, monotonic()):
            self._start_first("engine", requests)

    def _ready(self, steps: Iterable[Step]) -> list[Step]:
        """Return what may start now, each load with the touches before it, which it needs, or not at all."""
        now = monotonic()
        hurry = now < self._urgent_until
        ready: list[Step] = []
        touches: list[Step] = []
        for step in steps:
            touches.append(step)
            if step.action is Action.LOAD:
                late = hurry and step.seconds > self.view.takes(step)
                if not late and not any(self._backoff.holds(one, now) for one in touches):
                    ready += touches
                touches = []
        return ready if hurry else ready + touches

    def move_model(self, step: Step) -> None:
        """Wake the model or put it to sleep, where nothing else of ours is under way."""
        if not self._tracks and self.may_act:
            self._start_first("model", [step])

    def release(self, lora: str) -> None:
        """Drop the engine's name for a LoRA that no agent has any more."""
        if self.may_act:
            task = asyncio.create_task(self._release(lora))
            self._releases.add(task)
            task.add_done_callback(self._releases.discard)

    async def _release(self, lora: str) -> None:
        self._ask_before_sending()
        await self.acts.release_lora(lora)

    def _takes_no_slot(self, step: Step) -> bool:
        """Whether a request of the agent displaces no LoRA: which LoRAs are in slots is the LoRA plan's to say."""
        agent = self._population.agents.get(step.key)
        memory, loras = agent.memory if agent is not None else None, self.view.loras
        name = memory.lora_name if memory is not None else None
        if memory is not None and name is None and memory.model in loras.registered:
            name = memory.model  # bound by the name of a LoRA that the engine was given by others
        return name is None or name in loras.device

    def give_way(self, why: str, urgent: Collection[str]) -> None:
        """Let go of the engine for `urgent` agents that are about to call. For a while only work goes on for what is
        due by the time that it is done; what is under way for one of them is not cut off."""
        self._urgent_until = monotonic() + URGENT_SECONDS
        running = self._tracks.get("engine")
        if running is None or running[0].key not in urgent:
            self.cancel(why)

    def cancel(self, why: str) -> bool:
        """Stop computing prefixes: the engine is needed. Finished chunks stay where they are. A LoRA's request is too
        short to matter, and half done it would leave unknown which LoRAs the engine holds. Return whether something is
        stopped now."""
        running = self._tracks.get("engine")
        if running is None or running[0].kind is not MemoryKind.PREFIX_KV:
            return False
        # A second time would cut off the closing of the connection, by which the engine learns of it.
        return not running[1].cancelling() and running[1].cancel(why)

    def _start_first(self, track: str, steps: Sequence[Step]) -> None:
        if track in self._tracks:
            return
        now = monotonic()
        for step in steps:
            if not self._backoff.holds(step, now):
                token = None if self.view.lease is None else self.view.lease.token
                task = asyncio.create_task(self._perform(track, step, token))
                self._tracks[track] = (step, task)
                if track == "engine":
                    self.view.ours = step.key, math.inf
                task.add_done_callback(partial(self._ended, track, step))
                return

    def _ended(self, track: str, step: Step, task: asyncio.Task[None]) -> None:
        del self._tracks[track]
        if track == "engine":
            self.view.ours = step.key, monotonic() + FEED_LAG_SECONDS
        if not task.cancelled() and task.exception() is not None:
            self._failed(step, task.exception())
        self._wake()

    def _ask_before_sending(self) -> None:
        """Let this task's requests be held back once the lease is over, however long the process stood still, and
        carry its token."""
        if self.view.lease is not None:
            may_send.set(lambda: self.may_act)
            fence.set(self.view.lease.token)

    async def _perform(self, track: str, step: Step, token: int | None) -> None:
        started = monotonic()
        result, computed = "done", 0
        try:
            if track == "engine" and self.view.quiet.shared(started):
                if not await self.watch.is_quiet():
                    return
                started = monotonic()
            self._ask_before_sending()
            computed = await self.acts.perform(step)
            self._backoff.forget(step)
        except asyncio.CancelledError as cancelled:
            result = f"cancelled: {cancelled.args[0] if cancelled.args else 'stopping'}"
            self.view.ledger.cancelled += 1
        except Revoked as error:
            result = f"cancelled: {error}"
            self.view.ledger.cancelled += 1
        except (Busy, CapacityExceeded, NoRoom) as error:
            # Nothing is wrong: the memory is in use, and what is planned next knows that.
            result = f"put off: {error}"
            self._backoff.put_off(step, monotonic(), result)
        except (EngineError, OSError, ValueError) as error:
            result = f"failed: {error}"
            self._failed(step, error)
        seconds = monotonic() - started
        if track == "engine":
            self.view.quiet.spent(seconds, monotonic())
        if result == "done":
            self.view.took(step, seconds)
            self.acts.done(step)
        record = Record(time(), self.view.name, step, result, seconds, computed, token)
        self.records.append(record)
        self._record(record)
        if result == "done" and step.kind is MemoryKind.PREFIX_KV:
            await self.watch.until_told(step)

    def _failed(self, step: Step, error: BaseException | None) -> None:
        why = str(error)
        # What fails for the same reason again and again is no news.
        say = log.debug if self._backoff.why(step) == why else log.warning
        wait = self._backoff.put_off(step, monotonic(), why)
        self.view.ledger.failed += 1
        say("step failed", engine=self.view.name, action=step.action, key=step.key, error=why, retry_in=wait)
        if isinstance(error, EngineUnavailable):
            self.watch.lost(why)
        if isinstance(error, NotFound) and step.kind is MemoryKind.LORA:
            self.view.loras.forgotten(step.key)

    async def _stop(self) -> None:
        tasks = [task for _, task in self._tracks.values()] + [*self._texts, *self._releases]
        for task in tasks:
            task.cancel("stopping")
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.adapter.close()
