"""The one loop: take what happened, look once, plan, start the difference, report."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, time
from typing import TYPE_CHECKING

from scalesim_adapters.base import MemoryKind
from scalesim_client.events import Event
from scalesim_daemon.admin.access import Tokens
from scalesim_daemon.admin.operations import Operations
from scalesim_daemon.admin.orders import recorded, settle
from scalesim_daemon.board import DueRecord
from scalesim_daemon.broadcast import Broadcast
from scalesim_daemon.changelog import Changelog
from scalesim_daemon.dashboard.history import History
from scalesim_daemon.driver import Driver
from scalesim_daemon.fleet.homes import Homes, may_serve
from scalesim_daemon.gate import Admitted, Gate, Verdict
from scalesim_daemon.lora_linking import Linking
from scalesim_daemon.loras import LoraLibrary
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.planning import EnginePlan, plan_of_models, plans_of_engines
from scalesim_daemon.population import Changes, Memory, Population
from scalesim_daemon.recording.recorder import Recorder
from scalesim_daemon.records import Record
from scalesim_daemon.settings import RunMode, Settings
from scalesim_daemon.snapshot import Ranking, follow
from scalesim_daemon.timings import Timings
from scalesim_daemon.tracing import Traces

if TYPE_CHECKING:  # The hub looks at all of this; and where nothing is kept in Redis its client isn't loaded.
    from scalesim_daemon.admin.stream import Hub
    from scalesim_daemon.fleet.lease_keeper import Keeper
    from scalesim_daemon.fleet.shared import Shared
    from scalesim_daemon.intents import Intents
    from scalesim_daemon.store import Mirror

TICK_SECONDS = 0.25
ALIVE_SECONDS = 5.0
LONG_CYCLE_SECONDS = 0.05
LONGEST_REST_SECONDS = 1.0
KEPT_DECISIONS = 2000
# A cycle looks at much that no due changes: hundreds a second see as much as thousands.
GATHERED_SECONDS = 0.002
# More at once would save little, and keep others waiting: what is said singly costs more each, as calls and moves do.
MESSAGES_AT_ONCE, EVENTS_AT_ONCE = 64, 256


@dataclass(slots=True)
class Sidecar:
    """The daemon's state and its cycle. Everything in it belongs to one event loop."""

    settings: Settings
    library: LoraLibrary
    mirror: Mirror | None
    mode: RunMode
    gate: Gate = field(default_factory=lambda: Gate(monotonic()))
    population: Population = field(default_factory=Population)
    broadcast: Broadcast | None = None
    recorder: Recorder | None = None
    intents: Intents | None = None
    keeper: Keeper | None = None
    operations: Operations = field(default_factory=Operations)
    homes: Homes = field(default_factory=Homes)
    shared: Shared | None = None
    hub: Hub | None = None
    reread: Callable[[], Settings] | None = None
    tokens: Tokens = field(default_factory=Tokens)
    drivers: dict[str, Driver] = field(default_factory=dict)
    pins: dict[str, float] = field(default_factory=dict)
    plans: Mapping[str, EnginePlan] = field(default_factory=dict)
    model_plan: Sequence[Step] = ()
    decisions: deque[Record] = field(default_factory=lambda: deque(maxlen=KEPT_DECISIONS))
    counts: Counter[str] = field(default_factory=Counter)
    timings: Timings = field(default_factory=Timings)
    changelog: Changelog = field(default_factory=Changelog)
    history: History = field(default_factory=History)
    traces: Traces | None = None
    feed_address: str = ""
    api_url: str = ""
    gateway_url: str = ""
    strangers: int = 0
    """Calls that nobody announced which the gateway sees being served."""
    ticked_at: float = field(default_factory=monotonic)
    linking: Linking = field(init=False)
    _waiting: list[Admitted] = field(default_factory=list)
    _waiting_events: int = 0
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _pressed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.linking = Linking(self.library, self.cycle)

    def wake(self) -> None:
        """Ask for a cycle at once."""
        self._woken.set()
        self._pressed.set()

    @property
    def alive(self) -> bool:
        """Whether the loop has ticked lately."""
        return monotonic() - self.ticked_at < ALIVE_SECONDS

    def admit(
        self, topic: str, seq: int | None, raws: Sequence[object], peer: bytes | None = None
    ) -> Verdict:
        """Let one message through the gate and apply what it admits. `peer` is the connection that it came by, where
        connections are told apart."""
        if self.recorder is not None:
            self.recorder.message(topic, seq, raws)
        verdict = self.gate.admit(topic, seq, raws, peer)
        self._judged(verdict)
        self.take_in()
        return verdict

    def admit_plain(
        self, topic: str, seq: int | None, events: Sequence[Event], peer: bytes | None = None
    ) -> Verdict:
        """Let a message through the gate of which all is decoded and valid already. What it admits may wait for
        `take_in`: whoever has several messages at once calls that after the last, before anybody else has a turn."""
        verdict = self.gate.judge(topic, seq, events, peer=peer)
        self._judged(verdict)
        if len(self._waiting) >= MESSAGES_AT_ONCE or self._waiting_events >= EVENTS_AT_ONCE:
            self.take_in()
        return verdict

    def _judged(self, verdict: Verdict) -> None:
        self.counts["messages"] += 1
        self._waiting += verdict.admitted
        self._waiting_events += verdict.accepted

    def take_in(self) -> None:
        """Apply what has been admitted."""
        if self._waiting:
            admitted, self._waiting, self._waiting_events = self._waiting, [], 0
            self.population.apply(admitted, monotonic())
            self._woken.set()
            if self.population.pressing:
                self._pressed.set()

    async def run(self) -> None:
        """Cycle until cancelled: at once when woken, else at every tick; where only dues have changed, a little later,
        with what others change meanwhile. Where cycles are long, half of the time is left for taking in what makes
        them so; but a process that has stood still doesn't rest from that."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._woken.wait()
                    async with asyncio.timeout(GATHERED_SECONDS):
                        await self._pressed.wait()
            self._woken.clear()
            self._pressed.clear()
            began = monotonic()
            self.cycle()
            took = monotonic() - began
            # Events that came in one burst are handled by one cycle.
            await asyncio.sleep(min(took, LONGEST_REST_SECONDS) if took > LONG_CYCLE_SECONDS else 0)

    def cycle(self) -> None:
        """Do one round. It never waits for an engine."""
        began, started = time(), monotonic()
        self._round()
        self._say_changes()
        seconds = monotonic() - started
        self.timings.cycle(seconds)
        if self.traces is not None:
            under_way = {name: driver.in_flight for name, driver in self.drivers.items()}
            self.traces.cycle(began, seconds, self.mode, under_way)

    def _say_changes(self) -> None:
        views = (driver.view for driver in self.drivers.values())
        self.changelog.note(self.mode, views, self.gate.streams(), self.population.qualities())

    def _round(self) -> None:
        self.ticked_at = monotonic()
        self.counts["cycles"] += 1
        self.population.give_up_silent(self.ticked_at)
        self.population.apply(self.gate.tick(self.ticked_at), self.ticked_at)
        if self.population.behind:
            self.wake()
        changes = self.population.take_changes()
        views = {name: driver.view for name, driver in self.drivers.items()}
        self.homes.place_agents(views, self.population, changes, self.ticked_at, self._model_of)
        if self.shared is not None:
            self.shared.note(changes)
        self._tell_engines(changes)
        self._tell_mirror(changes)
        self._tell_plugins(changes)
        for driver in self.drivers.values():
            follow(driver.view, self.population)
        settle(self.operations, self.drivers, self.mode)
        self.plans, self.model_plan = {}, ()
        if self.mode is not RunMode.PAUSED:
            ranking = Ranking(self.population, self.pinned(), self.ticked_at)
            self.model_plan = plan_of_models(self, ranking)
            self.plans = plans_of_engines(self, ranking)
        if self.mode is not RunMode.ACTIVE:
            return
        self._move_models()
        self._pursue()

    def _pursue(self) -> None:
        announced = self._announced() + self.strangers
        leaving = {step.key for step in self.model_plan if step.action is Action.SLEEP}
        for name, plan in self.plans.items():
            if name in leaving:
                # What is loaded into a model that is to sleep is lost with it; names are not.
                names = [step for step in plan.loras if step.action is Action.REGISTER]
                self.drivers[name].pursue((), names, announced)
            else:
                self.drivers[name].pursue(plan.blocks, plan.loras, announced)

    def record(self, record: Record) -> None:
        """Keep what a driver did, for people and for the mirror."""
        self.decisions.append(record)
        self.counts["decisions"] += 1
        recorded(self.operations, record)
        self.timings.step(record)
        self.changelog.acted(record)
        if self.traces is not None:
            self.traces.step(record)
        told = {
            "at": record.at,
            "daemon": self.settings.fleet.name,
            "engine": record.engine,
            "action": record.step.action.value,
            "kind": record.step.kind.value,
            "key": record.step.key,
            "reason": record.step.reason,
            "result": record.result,
        }
        if self.keeper is not None:
            self.keeper.decided(record, told)
        elif self.mirror is not None:
            self.mirror.decision(told)

    def _tell_engines(self, changes: Changes) -> None:
        bound = list(self._memories(changes.bound))
        for key, memory in (*bound, *self._memories(changes.bound_again)):
            if memory.lora is not None and memory.lora_name is not None:
                self.linking.make(key, memory.lora_name, Path(memory.lora))
        for lora in changes.unused_loras:
            self.linking.not_taken.pop(lora, None)
        started, woken = self._calling_here(changes.started), self._calling_here(changes.woken)
        in_use = self.population.memories.loras
        unused = [name for name in changes.unused_loras if name not in in_use and self.mode is RunMode.ACTIVE]
        for name, driver in self.drivers.items():
            if started:
                driver.cancel("an invocation started")
            elif woken:
                driver.give_way("an agent was woken", woken)
            for key in changes.unbound:
                driver.view.forget(key)
            for key, memory in bound:
                driver.bind(key, memory)
            for lora in unused:
                driver.release(lora)
            for key in changes.started:
                agent = self.population.agents.get(key)
                if agent is not None and self.may_serve(name, key):
                    driver.view.started(agent)
            for key in changes.finished:
                agent = self.population.agents.get(key)
                used = agent.memory.lora_name if agent is not None and agent.memory is not None else None
                driver.watch.finished(key, used)
                if agent is None:
                    driver.view.forget(key)

    def _calling_here(self, agents: Sequence[str]) -> Sequence[str]:
        """Return who may call an engine that this daemon drives, of agents that call, or are about to."""
        if self.shared is None:
            return agents
        driven = list(filter(self.shared.drives, self.drivers))
        return [key for key in agents if any(self.may_serve(name, key) for name in driven)]

    def _announced(self) -> int:
        """Return how many announced invocations engines here are serving."""
        if self.shared is None:
            return self.population.in_flight()
        driven = filter(self.shared.drives, self.drivers)
        return sum(self.drivers[name].view.in_flight for name in driven)

    def brings_lora(self, engine: str, name: str) -> bool:
        """Whether a LoRA is being brought to an engine, or is about to be: then a request for it is early."""
        plan = self.plans.get(engine, EnginePlan())
        return (
            name in self.linking.under_way
            or self.population.binds(name)
            or (self.mode is RunMode.ACTIVE and self.drivers[engine].brings(name, plan.loras))
        )

    def _memories(self, keys: Iterable[str]) -> Iterator[tuple[str, Memory]]:
        for key in keys:
            agent = self.population.agents.get(key)
            if agent is not None and agent.memory is not None:
                yield key, agent.memory

    def _tell_mirror(self, changes: Changes) -> None:
        if self.mirror is None:
            return
        # A record names the agent's items too.
        for key in changes.dues.union(changes.bound, changes.unbound):
            if self.shared is None or self.shared.writes(key):
                self.mirror.mark(key, self.due_record(key))
        for source in changes.clocks:
            known = self.population.clocks().get(source)
            if known is not None:
                stream, clock = known
                self.mirror.clock(stream.simulation, clock.kind, clock.now, clock.pace)
        for simulation in changes.closed:
            if self.shared is None or self.shared.has_spoken_for(simulation):
                self.mirror.close_stream(simulation)

    def _tell_plugins(self, changes: Changes) -> None:
        if self.broadcast is None:
            return
        self.broadcast.mark(changes)
        if self.mode is RunMode.ACTIVE:
            self.broadcast.publish(self.pinned(), self.ticked_at)
        else:
            self.broadcast.hush()

    def pinned(self) -> set[str]:
        """Return the agents whose pins hold."""
        now = time()
        return {key for key, until in self.pins.items() if until > now}

    def due_records(self) -> dict[str, DueRecord]:
        """Return what Redis shows of all agents."""
        shared = self.shared
        agents = (key for key in self.population.agents if shared is None or shared.speaks_for(key))
        records = ((key, self.due_record(key)) for key in agents)
        return {key: record for key, record in records if record is not None}

    def due_record(self, key: str) -> DueRecord | None:
        """Return what Redis shows of an agent; None where no invocation is foreseen."""
        due = self.population.board.get(key)
        if due is None:
            return None
        agent = self.population.agents.get(key)
        memory = agent.memory if agent is not None else None
        return DueRecord(
            due.at, due.clock.kind, due.confidence, due.why, [] if memory is None else memory.items
        )

    def _move_models(self) -> None:
        """Start the first step of the plan for models: the next is for the next cycle, when this one is done."""
        moving = any(
            step.kind is MemoryKind.MODEL for driver in self.drivers.values() for step in driver.in_flight
        )
        if self.model_plan and not moving:
            step = self.model_plan[0]
            self.drivers[step.key].move_model(step)

    def home_of(self, key: str) -> str | None:
        """Return the engine that an agent lives on, None where that isn't decided."""
        return next(iter(self.drivers)) if self._alone else self.homes.home(key)

    def at_home(self, engine: str, key: str) -> bool:
        """Whether an agent's requests go to this engine: it lives there, or this is the only engine."""
        return self._alone or self.homes.home(key) == engine

    def reads_here(self, key: str) -> bool:
        """Whether an agent lives on an engine of this daemon's own, which reads the LoRAs that are staged here."""
        driver = self.drivers.get(self.home_of(key) or "")
        return driver is not None and not driver.view.standby

    def may_serve(self, engine: str, key: str) -> bool:
        """Whether the agent's request may be on its way to this engine: its home, or any engine here that can as long
        as it wasn't seen to be served at home."""
        home = self.homes.home(key)
        if self._alone or self.homes.placement.proven(key) or (home is not None and self.shared is not None):
            return self.at_home(engine, key)
        return self._can_serve(engine, key)

    @property
    def _alone(self) -> bool:
        """Whether there is no engine but one, as far as this daemon knows."""
        return len(self.drivers) == 1 and self.shared is None

    def _can_serve(self, engine: str, key: str) -> bool:
        """Whether the engine serves the model that the agent has bound, where it has bound one."""
        return may_serve(self.drivers[engine].view, self._model_of(key))

    def _model_of(self, key: str) -> str | None:
        agent = self.population.agents.get(key)
        return agent.memory.model if agent is not None and agent.memory is not None else None
