"""From the daemon's state to a plan for each engine, and one for models. Nothing is done by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.admin.orders import Orders
from scalesim_daemon.plan import Step
from scalesim_daemon.plan_blocks import plan_blocks
from scalesim_daemon.plan_demotions import plan_demotions
from scalesim_daemon.plan_loras import plan_loras
from scalesim_daemon.plan_models import plan_models
from scalesim_daemon.snapshot import Ranking, block_cache, lora_cache, model_cache

if TYPE_CHECKING:
    from scalesim_daemon.driver import Driver
    from scalesim_daemon.loop import Sidecar


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What is to be done on one engine, as of one snapshot."""

    blocks: Sequence[Step] = ()
    loras: Sequence[Step] = ()


def plans_of_engines(sidecar: Sidecar, ranking: Ranking) -> dict[str, EnginePlan]:
    """Return the plan of each engine that can be reached and is awake."""
    awake = {
        name: driver
        for name, driver in sidecar.drivers.items()
        if driver.view.reachable and not driver.view.asleep
    }
    return {name: _plan_engine(sidecar, ranking, name, driver) for name, driver in awake.items()}


def _plan_engine(sidecar: Sidecar, ranking: Ranking, name: str, driver: Driver) -> EnginePlan:
    asked = [one for one in sidecar.operations.open() if one.engine == name]
    orders = Orders(asked, sidecar.population, ranking.pins)
    first = ranking.with_pins(orders.first(MemoryKind.PREFIX_KV))
    chunk = sidecar.settings.planner.chunk_tokens
    cache = block_cache(driver.view, first, partial(sidecar.at_home, name), chunk)
    blocks = [*plan_demotions(cache), *plan_blocks(cache)] if cache is not None else ()
    loras = _plan_loras(sidecar, ranking, name, driver, orders)
    return EnginePlan(
        orders.applied(MemoryKind.PREFIX_KV, blocks, driver),
        orders.applied(MemoryKind.LORA, loras, driver),
    )


def _plan_loras(
    sidecar: Sidecar, ranking: Ranking, name: str, driver: Driver, orders: Orders
) -> Sequence[Step]:
    if driver.view.standby:
        # Links to LoRAs and copies of them are of its own host.
        return ()
    wanted = orders.first(MemoryKind.LORA)

    def needs(key: str) -> bool:
        """Whether an agent's LoRA is needed there: it may call there, or an operator wants it there."""
        return key in wanted or sidecar.may_serve(name, key)

    links, free = sidecar.library.inventory()
    first = ranking.with_pins(wanted)
    return plan_loras(
        lora_cache(driver.view, sidecar.population, first, needs, sidecar.reads_here, links, free)
    )


def plan_of_models(sidecar: Sidecar, ranking: Ranking) -> Sequence[Step]:
    """Return which models are to sleep and to wake, of the engines that this daemon may act on."""
    budget = sidecar.settings.models.budget_bytes
    if budget is None:
        return ()
    driven = ((name, driver) for name, driver in sidecar.drivers.items() if driver.may_act)
    views = {name: driver.view for name, driver in driven if not driver.view.standby}
    return plan_models(model_cache(views, sidecar.population, ranking, sidecar.at_home, budget))
