"""What becomes of the gain as more of the agents call in each step, and as the population grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from functools import partial
from typing import Any

from bench.policy.scenes import ACTIVE, Scene, independent
from bench.policy.simulated import H100, Machine, compare
from bench.policy.variants import SWEPT

ACTIVES = (0.05, 0.2, 0.5, 1.0)
POPULATIONS = (25, 100, 500, 2500)
LARGEST = (10_000, 100_000)
SEEDS = range(1, 4)
# With so many agents every seed gives nearly the same, and few steps are enough.
LARGE = 1_000
LARGE_STEPS = 5
LARGE_SEEDS = range(1, 2)

Tick = Callable[[str], None]


def sweep_active(pool: Executor, tick: Tick) -> list[dict[str, Any]]:
    """Return the variants' rows at each share of active agents."""
    return [_place(replace(H100, seeds=SEEDS), active, pool, tick) for active in ACTIVES]


def sweep_agents(populations: Sequence[int], pool: Executor, tick: Tick) -> list[dict[str, Any]]:
    """Return the variants' rows for each size of the population; the device holds a quarter of it, whatever it is."""
    rows = []
    for agents in populations:
        steps, seeds = (LARGE_STEPS, LARGE_SEEDS) if agents > LARGE else (H100.steps, SEEDS)
        rows.append(_place(replace(H100, agents=agents, steps=steps, seeds=seeds), ACTIVE, pool, tick))
    return rows


def _place(machine: Machine, active: float, pool: Executor, tick: Tick) -> dict[str, Any]:
    draw = partial(_drawn, machine.agents, machine.steps, active)
    tell = partial(_tell, tick, f"{machine.agents:,} agents, {active:.0%} active")
    found, _ = compare(machine, draw, machine.seeds, SWEPT, pool, tell)
    return {
        "active": active,
        "agents": machine.agents,
        "steps": machine.steps,
        "seeds": len(machine.seeds),
        "variants": found,
    }


def _tell(tick: Tick, what: str, which: str) -> None:
    tick(f"{what}, {which}")


def _drawn(agents: int, steps: int, active: float, seed: int) -> Scene:
    return independent(agents, steps, seed, active)
