"""An operator's operations in the loop: they take part in planning, and go the way of every other step.

To prefetch is to rank an item before all others until it is there: room, victims, touches and the quiet rule are the
planner's and the driver's, as for a pin. To evict is one step more, which waits while a request uses the item or
somebody pins it, and for which the item is not loaded meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from time import time

from scalesim_adapters.base import Capability, MemoryKind
from scalesim_daemon.admin.operations import Operation, Operations, State
from scalesim_daemon.driver import Driver
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.population import Agent, Population
from scalesim_daemon.records import Record
from scalesim_daemon.settings import RunMode

ASKED = "an operator asked for it"
BRINGING = (Action.LOAD, Action.TOUCH)


def owners(population: Population, lora: str) -> list[Agent]:
    """Return the agents that have bound a LoRA."""
    return [population.agents[key] for key in population.memories.loras.get(lora, ())]


class Orders:
    """The open operations of one engine, as of one cycle."""

    def __init__(
        self, operations: Iterable[Operation], population: Population, pins: Collection[str]
    ) -> None:
        self._loads = [one for one in operations if one.action is Action.LOAD]
        self._evictions = [one for one in operations if one.action is Action.EVICT]
        self._population = population
        self._pins = pins

    def first(self, kind: MemoryKind) -> set[str]:
        """Return the agents that are ranked before all others, where memory of a kind is planned. An agent's prefix is
        loaded with its LoRA."""
        found = {one.key for one in self._loads if one.kind is MemoryKind.PREFIX_KV}
        if kind is MemoryKind.LORA:
            for one in self._loads:
                if one.kind is kind:
                    found.update(agent.key for agent in owners(self._population, one.key))
        return found

    def applied(self, kind: MemoryKind, steps: Sequence[Step], driver: Driver) -> Sequence[Step]:
        """Return a plan with what operators asked for: first the evictions that may be, then all that is planned, but
        for what would bring back what is to go."""
        asked = {one.key for one in self._loads if one.kind is kind}
        going = {one.key: one for one in self._evictions if one.kind is kind}
        if not asked and not going:
            return steps
        evictions = [_eviction(one, driver) for one in going.values() if self._may_go(one)]
        kept = [step for step in steps if not (step.key in going and step.action in BRINGING)]
        return evictions + [
            replace(step, reason=f"{ASKED}: {step.reason}") if step.key in asked else step for step in kept
        ]

    def _may_go(self, operation: Operation) -> bool:
        why = in_use(self._population, self._pins, operation.kind, operation.key)
        if why is not None:
            operation.state, operation.detail = State.WAITING, why
        return why is None


def in_use(population: Population, pins: Collection[str], kind: MemoryKind, key: str) -> str | None:
    """Return why an item may not leave its engine now, None where it may."""
    known = population.agents.get(key)
    users = owners(population, key) if kind is MemoryKind.LORA else [known] if known is not None else []
    for agent in users:
        if agent.key in pins:
            return f"{agent.key} is pinned: unpin it first"
        if agent.in_flight:
            return f"a request of {agent.key} is being served"
    return f"{key} is pinned: unpin it first" if kind is MemoryKind.PREFIX_KV and key in pins else None


def eviction_action(driver: Driver, kind: MemoryKind) -> Action | None:
    """Return by which action an engine lets go of memory of a kind, None where it can't be told to."""
    info = driver.view.info
    able = Capability.NONE if info is None else info.capabilities.get(kind, Capability.NONE)
    if Capability.EVICT in able:
        return Action.EVICT
    return Action.DEMOTE if kind is MemoryKind.PREFIX_KV and Capability.DEMOTE in able else None


def resident(driver: Driver, kind: MemoryKind, key: str) -> bool:
    """Whether all of an item is on the device, as far as the engine's view knows."""
    if kind is MemoryKind.LORA:
        return key in driver.view.loras.device
    tree = driver.view.tree
    return tree is not None and 0 < tree.prefix_blocks(key) <= tree.resident_blocks(key)


def settle(operations: Operations, drivers: Mapping[str, Driver], mode: RunMode) -> None:
    """End what has come about or can't any more, and note what is under way."""
    now = time()
    for one in operations.open():
        driver = drivers[one.engine]
        if one.action is Action.LOAD and resident(driver, one.kind, one.key):
            one.end(State.DONE, "it is on the device", now)
        elif now >= one.until:
            one.end(State.EXPIRED, one.detail or "there was no room, or the engine was never quiet", now)
        elif any(_serves(step, one) for step in driver.in_flight):
            one.state, one.detail = State.RUNNING, ""
        elif (why := _stands_still(driver, mode)) is not None:
            one.state, one.detail = State.WAITING, why
        elif one.state is State.RUNNING:
            one.state = State.WAITING


def _stands_still(driver: Driver, mode: RunMode) -> str | None:
    if mode is not RunMode.ACTIVE:
        return f"the mode is {mode}, in which nothing is moved"
    if not driver.view.reachable:
        return f"the engine does not answer: {driver.view.error}"
    if (why := driver.why_not) is not None:
        return why
    return "the engine's model sleeps" if driver.view.asleep else None


def recorded(operations: Operations, record: Record) -> None:
    """Take in what came of a step."""
    for one in operations.open():
        if one.engine != record.engine or not _serves(record.step, one):
            continue
        if record.result.startswith("failed"):
            one.end(State.FAILED, record.result.removeprefix("failed: "), record.at)
        elif record.result != "done":
            one.state, one.detail = State.WAITING, record.result
        elif one.action is Action.EVICT:
            first = record.step.action is Action.DEMOTE
            one.end(
                State.DONE,
                "it is the first to leave, when room is needed" if first else "it is gone",
                record.at,
            )


def _serves(step: Step, operation: Operation) -> bool:
    bringing = step.action in (Action.LOAD, Action.REGISTER)
    wanted = bringing if operation.action is Action.LOAD else step.action in (Action.EVICT, Action.DEMOTE)
    return wanted and (step.kind, step.key) == (operation.kind, operation.key)


def _eviction(operation: Operation, driver: Driver) -> Step:
    action = eviction_action(driver, operation.kind) or Action.EVICT
    return Step(action, operation.kind, operation.key, 0, 0, float("inf"), ASKED)
