"""The daemon's own code beside a simulated engine: population, dues, snapshot, planner, and when it is quiet.

Only what would touch sockets is left out: events come at once and complete, and of a plan one step after another is
carried out for as long as the engine stays quiet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import simpy

from scalesim_adapters.base import Capability, EngineInfo, MemoryKind, Pressure
from scalesim_adapters.dues import DueTable
from scalesim_client.events import Event
from scalesim_daemon.blocks import BlockTree
from scalesim_daemon.broadcast import DueLedger
from scalesim_daemon.eviction import NOBODY, Group
from scalesim_daemon.gate import Opened, Said, Stream
from scalesim_daemon.loadtimes import LoadTime
from scalesim_daemon.loop import TICK_SECONDS
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.plan_blocks import plan_blocks
from scalesim_daemon.population import Population
from scalesim_daemon.settings import PlannerSettings
from scalesim_daemon.snapshot import Ranking, block_cache
from scalesim_daemon.view import EngineView
from scalesim_daemon.watch import PRESSURE_SECONDS
from scalesim_daemon.whatif.costs import Costs
from scalesim_daemon.whatif.engine import Engine, Process
from scalesim_daemon.whatif.memory import Device

SIMULATION = "what-if"
STREAM = Stream(SIMULATION, SIMULATION, 1, "step")


def key_of(agent: str) -> str:
    """Return the key by which the daemon knows an agent of the simulation."""
    return f"{SIMULATION}/{agent}"


class DeviceTree(BlockTree):
    """What the daemon would make of the events of a simulated device: read from there instead of rebuilt."""

    def __init__(self, block_tokens: int, device: Device, prefixes: Mapping[str, int]) -> None:
        super().__init__(block_tokens)
        self._device = device
        self._lengths = prefixes

    def look(self) -> None:
        """Count what is resident now."""
        self.resident = self._device.capacity - self._device.free

    def started(self, agent: str) -> None:
        """The device knows by itself what a request uses."""

    def prefix_blocks(self, agent: str) -> int:
        """Return the length of the agent's prefix in blocks."""
        return self._lengths[agent]

    def resident_blocks(self, agent: str) -> int:
        """Return how many blocks at the head of the agent's prefix are on the device."""
        return self._device.resident(agent)

    def agents(self) -> Iterator[str]:
        """Yield all agents."""
        return iter(self._lengths)

    def take_changed(self) -> None:
        """Say that what is resident may have changed of all."""

    def groups(self) -> Iterator[Group]:
        """Yield the blocks that no request uses, by agent, the least recently used first."""
        for agent, blocks in self._device.idle():
            yield Group(NOBODY if agent is None else frozenset((agent,)), blocks)


class Sidecar:
    """Hears what the simulation says, keeps `table` as an engine's plug-in would hear it, and prefetches where it may.
    `prefixes` are the agents' own blocks, by their keys. Where the engine is `shared` with others it looks for them, as
    often as the daemon does when it has nothing under way."""

    def __init__(
        self,
        env: simpy.Environment,
        engine: Engine,
        costs: Costs,
        table: DueTable,
        prefixes: Mapping[str, int],
        *,
        prefetch: bool,
        shared: bool,
    ) -> None:
        self.population = Population()
        self.population.apply([Opened(STREAM)], env.now)
        chunk = PlannerSettings().chunk_tokens
        self.view = EngineView("simulated", quiet_share=PlannerSettings().quiet_share)
        self._env = env
        self._engine = engine
        self._table = table
        self._ledger = DueLedger(self.population)
        table.apply(self._ledger.snapshot(()), env.now)
        self._chunk_tokens = max(chunk, costs.block_tokens)
        self._block_tokens = costs.block_tokens
        self._tree = DeviceTree(costs.block_tokens, engine.device, prefixes)
        able = Capability.LOAD | Capability.EVENTS
        self.view.info = EngineInfo(
            engine="simulated",
            version=costs.name,
            incarnation="1",
            base_models=("base",),
            capabilities={MemoryKind.PREFIX_KV: able},
            block_size=costs.block_tokens,
            device_blocks=engine.device.capacity,
        )
        self.view.tree, self.view.known = self._tree, True
        self.view.times.prefix = LoadTime(costs.step_seconds, 1, costs.prefill_token_seconds)
        self.view.quiet.observe(Pressure(0, 0, 0), 0, env.now)
        self._news = env.event()
        if prefetch:
            env.process(self._prefetch())
        if prefetch and shared:
            env.process(self._look())

    def say(self, events: Iterable[Event]) -> None:
        """Take in what the simulation says now."""
        self._hear([Said(STREAM, tuple(events))])
        # What the daemon leaves to turns it has done within milliseconds.
        while self.population.behind:
            self._hear(())
        self._table.apply(self._ledger.delta(()), self._env.now)
        if not self._news.triggered:
            self._news.succeed()

    def _hear(self, said: Iterable[Said]) -> None:
        self.population.apply(said, self._env.now)
        changes = self.population.take_changes()
        self._ledger.mark(changes)
        for key in changes.started:
            self.view.started(self.population.agents[key])
        for key in changes.finished:
            self.view.finished(key, None)

    def _prefetch(self) -> Process:
        while True:
            quiet = self._is_quiet()
            steps = self._plan() if quiet else ()
            for step in steps:
                if not self._is_quiet():
                    break
                yield from self._perform(step)
            if not steps:
                self._news = self._env.event()
                lull = not quiet and not self.population.in_flight()
                yield self._news | self._env.timeout(TICK_SECONDS) if lull else self._news

    def _look(self) -> Process:
        while True:
            self.view.quiet.observe(self._engine.pressure, self.view.requests_started, self._env.now)
            yield self._env.timeout(PRESSURE_SECONDS)

    def _is_quiet(self) -> bool:
        seconds = self.view.times.prefix.of(self._chunk_tokens)
        return self.view.quiet.may_start(self.population.in_flight(), seconds, self._env.now)

    def _plan(self) -> list[Step]:
        self._tree.look()
        ranking = Ranking(self.population, (), self._env.now)
        cache = block_cache(self.view, ranking, lambda agent: True, self._chunk_tokens)
        return [] if cache is None else plan_blocks(cache)

    def _perform(self, step: Step) -> Process:
        """Send the request of one token that loads or touches."""
        began = self._env.now
        self.view.requests_started += 1
        request = self._engine.submit(step.key, step.stop, 1, 1)
        yield request.ended
        self.view.quiet.spent(self._env.now - began, self._env.now)
        if step.action is Action.LOAD:
            self.view.took(step, self._env.now - began)
            computed = step.stop - request.cached - request.loaded
            self.view.ledger.loaded(step.key, computed * self._block_tokens)
        else:
            self.view.ledger.touches += 1
