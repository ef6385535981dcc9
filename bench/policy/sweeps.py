"""What becomes of the gain as more of the agents call in each step, and as the population grows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any

from bench.policy.scenes import ACTIVE, Scene, independent
from bench.policy.simulated import MACHINES, compare
from bench.policy.variants import SWEPT

ACTIVES = (0.05, 0.2, 0.5, 1.0)
POPULATIONS = (25, 100, 500, 2500)
LARGEST = (10_000, 100_000)
SEEDS = 3
# With so many agents every seed gives nearly the same, and few steps are enough.
LARGE = 1_000
LARGE_STEPS = 5

Tick = Callable[[str], None]


def sweep_active(seed: int, pool: Executor, tick: Tick) -> list[dict[str, Any]]:
    """Return the variants' rows at each share of active agents."""
    machine = MACHINES["h100"]
    rows = []
    for active in ACTIVES:
        draw = partial(_drawn, machine.agents, machine.steps, active)
        found, _ = compare(
            machine,
            draw,
            range(seed, seed + SEEDS),
            SWEPT,
            pool,
            partial(_tell, tick, f"{active:.0%} active"),
        )
        rows.append({"active": active, "agents": machine.agents, "seeds": SEEDS, "variants": found})
    return rows


def sweep_agents(seed: int, scale: bool, pool: Executor, tick: Tick) -> list[dict[str, Any]]:
    """Return the variants' rows for each size of the population; the device holds a quarter of it, whatever it is."""
    rows = []
    for agents in POPULATIONS + (LARGEST if scale else ()):
        large = agents > LARGE
        steps, seeds = (LARGE_STEPS, 1) if large else (MACHINES["h100"].steps, SEEDS)
        machine = replace(MACHINES["h100"], agents=agents, steps=steps)
        draw = partial(_drawn, agents, steps, ACTIVE)
        found, _ = compare(
            machine, draw, range(seed, seed + seeds), SWEPT, pool, partial(_tell, tick, f"{agents:,} agents")
        )
        rows.append({"active": ACTIVE, "agents": agents, "seeds": seeds, "variants": found})
    return rows


def _tell(tick: Tick, what: str, which: str) -> None:
    tick(f"{what}, {which}")


def _drawn(agents: int, steps: int, active: float, seed: int) -> Scene:
    return independent(agents, steps, seed, active)
