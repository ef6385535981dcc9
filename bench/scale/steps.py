"""The plan: from one host to 1,000 engines and 10 million agents, each step with what it changes."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from bench.scale.costs import Costs
from bench.scale.model import Fleet, first_limit, last, uses

PER_ENGINE = 10_000
TOGETHER = 10
"""Engines whose daemons may take over one another's; and those of a cell, or of a bucket."""
SHARDS = 64


@dataclass(frozen=True, slots=True)
class Step:
    """Engines, and what is new about them; `built` where the daemon can do so."""

    name: str
    new: str
    fleet: Fleet
    built: bool = True


def together(agents: int) -> Fleet:
    """Return one fleet for so many agents of one simulation: one Redis, and each daemon hears the part of the
    simulation that runs beside it."""
    engines = math.ceil(agents / PER_ENGINE)
    return Fleet(engines=engines, agents=agents, watched=min(engines, TOGETHER), doors=engines)


def in_cells(agents: int) -> Fleet:
    """Return cells of ten engines, with a part of the simulation and a Redis each."""
    fleet = together(agents)
    cells = math.ceil(fleet.engines / TOGETHER)
    return replace(fleet, cells=cells, simulations=cells)


def in_buckets(agents: int) -> Fleet:
    """Return one fleet whose simulation has a bucket for each ten engines, on 64 shards."""
    fleet = together(agents)
    return replace(fleet, buckets=math.ceil(fleet.engines / TOGETHER), shards=SHARDS)


STEPS = (
    Step("1", "one host: an engine, a daemon, its embedded Valkey", together(10_000)),
    Step(
        "2",
        "ten engines with one Redis; one daemon hears the simulation",
        replace(together(100_000), doors=1),
    ),
    Step("2a", "each daemon hears the part of the simulation that runs beside it", together(100_000)),
    Step("3", "100 engines, else as 2a", together(1_000_000)),
    Step("3a", "ten cells of ten engines, a Redis and a part of the simulation each", in_cells(1_000_000)),
    Step("4", "1,000 engines in one fleet, on 64 shards", replace(together(10_000_000), shards=SHARDS)),
    Step("4a", "100 cells of ten engines", in_cells(10_000_000)),
    Step(
        "4b",
        "one fleet, a bucket for each ten engines, 64 shards",
        in_buckets(10_000_000),
        built=False,
    ),
)


def largest_fleet(costs: Costs) -> int:
    """Return how many engines with 10,000 agents each fit in one fleet with one Redis."""

    def fits(engines: int) -> bool:
        return first_limit(uses(together(PER_ENGINE * engines), costs)).share <= 1

    return last(fits, 10**5)
