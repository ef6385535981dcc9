"""Each variant of each class on a simulated engine, over several seeds: ratios to the engine alone, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from statistics import median, quantiles
from types import MappingProxyType

from bench.policy.scenes import Scene
from bench.policy.variants import VARIANTS, Variant
from scalesim_daemon.whatif.costs import CPU_90M, H100_QWEN_7B, Costs
from scalesim_daemon.whatif.run import Figures, simulate
from scalesim_daemon.whatif.workload import Prompt

RESIDENT = 0.25
IN_HOST = 0.5
EVERYTHING = 4

Row = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Machine:
    """An engine and how it is used: at most `concurrency` calls at a time, of one prompt's shape."""

    costs: Costs
    agents: int
    prompt: Prompt
    concurrency: int | None
    steps: int
    seeds: int

    def device_tokens(self, agents: int) -> int:
        """Return what the device holds: a quarter of the agents' prefixes."""
        return self.prompt.shared + max(
            round(RESIDENT * agents * self.prompt.private),
            # One call's tokens at least.
            2 * (self.prompt.tokens + self.prompt.output),
        )

    def host_tokens(self, agents: int) -> int:
        """Return what a host tier holds: half of the agents' prefixes."""
        return round(IN_HOST * agents * self.prompt.private)

    def play(self, variant: Variant, scene: Scene, seed: int) -> Figures:
        """Simulate one variant, without pause."""
        workload = variant.workload(scene, self.prompt, 0.0, self.concurrency, seed)
        agents = len(scene.agents)
        device = self.device_tokens(agents)
        if variant.everything_fits:
            device = EVERYTHING * agents * (self.prompt.tokens + self.prompt.output)
        host = self.host_tokens(agents) if variant.host else 0
        return simulate(workload, self.costs, variant.setup, device_tokens=device, host_tokens=host)


# The paper's setting where it is known: about 500 agents, of which a quarter fits on the device. The prompts on the CPU
# are those of the real engine's benchmarks.
MACHINES: Mapping[str, Machine] = MappingProxyType(
    {
        "h100": Machine(H100_QWEN_7B, 500, Prompt(), None, 15, 5),
        "cpu": Machine(CPU_90M, 50, Prompt(128, 1024, 16, 8), 4, 40, 10),
    }
)


def compare(
    machine: Machine,
    draw: Callable[[int], Scene],
    seeds: Sequence[int],
    variants: Sequence[str],
    pool: Executor,
    tick: Callable[[str], None],
) -> tuple[dict[str, Row], float]:
    """Play the variants on scenes drawn by `seeds`, each seed in the `pool`; return their rows, and the share of agents
    that calls in a step. `tick` is told of each seed that is done."""
    played: dict[str, list[Figures]] = {name: [] for name in variants}
    active = []
    plays = pool.map(partial(_play, machine, draw, tuple(variants)), seeds)
    for seed, (share, figures) in zip(seeds, plays, strict=True):
        tick(f"seed {seed}")
        active.append(share)
        for name, found in figures.items():
            played[name].append(found)
    return {name: row(played["alone"], played[name]) for name in variants}, median(active)


def _play(
    machine: Machine, draw: Callable[[int], Scene], variants: tuple[str, ...], seed: int
) -> tuple[float, dict[str, Figures]]:
    scene = draw(seed)
    return scene.active, {name: machine.play(VARIANTS[name], scene, seed) for name in variants}


def row(alone: Sequence[Figures], variant: Sequence[Figures]) -> Row:
    """Return the medians over the seeds, of the makespan with the interval that holds nine in ten of them."""
    pairs = list(zip(alone, variant, strict=True))
    makespans = [one.makespan / other.makespan for one, other in pairs]
    low, high = interval(makespans)
    prefetches = sum(figures.prefetches for figures in variant)
    used = sum(figures.prefetches_used for figures in variant)
    orders = [figures.order for figures in variant if figures.order is not None]
    return {
        "makespan_ratio": median(makespans),
        "makespan_ratio_low": low,
        "makespan_ratio_high": high,
        "ttft_mean_ratio": median(one.ttft_mean / other.ttft_mean for one, other in pairs),
        "ttft_p95_ratio": median(one.ttft_p95 / other.ttft_p95 for one, other in pairs),
        "cached_share": median(figures.cached for figures in variant),
        "recomputed_tokens_ratio": median(
            other.recomputed / one.recomputed if one.recomputed else 1.0 for one, other in pairs
        ),
        "order_accuracy": median(orders) if orders else None,
        "precision": used / prefetches if prefetches else None,
    }


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 5 % and 95 % quantiles, read off between the values; of one value, that value twice."""
    if len(values) == 1:
        return values[0], values[0]
    cuts = quantiles(values, n=20, method="inclusive")
    return cuts[0], cuts[-1]
