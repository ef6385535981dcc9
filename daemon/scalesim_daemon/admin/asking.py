"""Whether what an operator asks for can be, and on which engine: refused at once where it can't."""

from __future__ import annotations

from collections.abc import Callable
from time import time

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.admin.models import Order
from scalesim_daemon.admin.operations import Operation, State
from scalesim_daemon.admin.orders import eviction_action, in_use, owners, resident
from scalesim_daemon.driver import Driver
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.plan import Action
from scalesim_daemon.report_agents import check_known
from scalesim_daemon.settings import RunMode


class UnknownItem(LookupError):
    """There is no such engine, LoRA or operation."""


class NotNow(Exception):
    """As things stand that can't be done; the text says what stands against it."""


class NotHere(Exception):
    """The engine, as it is, can't do that at all."""


def prefetch(sidecar: Sidecar, order: Order) -> Operation:
    """Start bringing an item to the device. Raises `UnknownAgent`, `UnknownItem`, `NotNow`, `NotHere` and
    `TooManyOperations`."""
    _check(sidecar, order)
    engine = _engine(sidecar, order, lambda driver: _loadable(sidecar, driver, order) is None)
    why = _loadable(sidecar, sidecar.drivers[engine], order)
    if why is not None:
        raise NotNow(f"{engine}: {why}")
    return _start(sidecar, Action.LOAD, order, engine)


def evict(sidecar: Sidecar, order: Order) -> Operation:
    """Start moving an item out of an engine. Raises what `prefetch` does."""
    _check(sidecar, order)
    engine = _engine(sidecar, order, lambda driver: _present(driver, order))
    driver = sidecar.drivers[engine]
    if driver.view.info is not None and eviction_action(driver, order.kind) is None:
        raise NotHere(
            f"{engine} can't be told to let go of a {order.kind}: stock engines evict what was used longest ago, and "
            "unloading a LoRA's name would free nothing and let its requests fail"
        )
    why = in_use(sidecar.population, sidecar.pinned(), order.kind, order.key)
    if why is None and not _present(driver, order):
        why = f"{engine} holds nothing of it"
    if why is not None:
        raise NotNow(why)
    return _start(sidecar, Action.EVICT, order, engine)


def cancel(sidecar: Sidecar, identity: str) -> Operation:
    """End an operation that is not over, and let go of the engine where it is being carried out. Raises
    `UnknownItem`."""
    operation = find(sidecar, identity)
    if operation.open:
        operation.end(State.CANCELLED, "an operator cancelled it", time())
        driver = sidecar.drivers[operation.engine]
        if any(step.key == operation.key and step.kind is operation.kind for step in driver.in_flight):
            driver.cancel("an operator cancelled it")
        sidecar.wake()
    return operation


def find(sidecar: Sidecar, identity: str) -> Operation:
    """Return an operation by its id. Raises `UnknownItem`."""
    operation = sidecar.operations.get(identity)
    if operation is None:
        raise UnknownItem(f"operation {identity!r} is not known, or not any more")
    return operation


def _check(sidecar: Sidecar, order: Order) -> None:
    if order.kind is MemoryKind.MODEL:
        raise NotHere("models move by models.budget_bytes alone: pin one of its agents to have a model woken")
    if order.kind is MemoryKind.LORA:
        if not owners(sidecar.population, order.key):
            raise UnknownItem(f"LoRA {order.key!r} is not known: no agent has bound it")
    else:
        check_known(sidecar, order.key)
    if order.engine is not None and order.engine not in sidecar.drivers:
        raise UnknownItem(
            f"engine {order.engine!r} is not known: there are {', '.join(sidecar.drivers) or 'none'}"
        )
    if not sidecar.drivers:
        raise NotNow("no engine is configured")
    if sidecar.mode is not RunMode.ACTIVE:
        raise NotNow(f"the mode is {sidecar.mode}, in which nothing is moved: POST /v1/resume first")


def _engine(sidecar: Sidecar, order: Order, suits: Callable[[Driver], bool]) -> str:
    """Return the engine that is meant: the one that is named, the only one, or the only one that suits."""
    if order.engine is not None:
        return order.engine
    able = [name for name, driver in sidecar.drivers.items() if suits(driver)]
    if len(able) > 1:
        raise NotNow(f"{' and '.join(able)} come into question: name the engine")
    return able[0] if able else next(iter(sidecar.drivers))


def _loadable(sidecar: Sidecar, driver: Driver, order: Order) -> str | None:
    """Return why an item can't be brought to an engine, None where it can."""
    view = driver.view
    if not view.reachable:
        return f"it does not answer: {view.error}"
    if order.kind is MemoryKind.LORA:
        told = "how many LoRAs it holds isn't known: set engines.lora_slots"
        return None if view.loras.device_places else told
    if not view.known or view.tree is None:
        return f"its blocks are not known: {view.unknown_why}"
    if not view.tree.prefix_blocks(order.key):
        return "the agent's prefix isn't known there: bind its memory, or let it call twice"
    if not sidecar.at_home(view.name, order.key):
        return "the agent's requests go to another engine"
    return None


def _present(driver: Driver, order: Order) -> bool:
    if order.kind is MemoryKind.LORA:
        return order.key in driver.view.loras.host or resident(driver, order.kind, order.key)
    return driver.view.tree is not None and driver.view.tree.resident_blocks(order.key) > 0


def _start(sidecar: Sidecar, action: Action, order: Order, engine: str) -> Operation:
    why = sidecar.drivers[engine].why_not
    if why is not None:
        raise NotNow(f"{engine}: {why}")
    operation = sidecar.operations.start(action, order.kind, order.key, engine, time(), order.within)
    sidecar.wake()
    return operation
