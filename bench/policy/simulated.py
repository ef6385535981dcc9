"""Each variant of each class on a simulated engine, over several seeds: ratios to the engine alone, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench.engine.classes import LONGEST, MIXED, RATE, VILLAGE
from bench.engine.places import POOL_SHARE, TIER_SHARE
from bench.engine.variants import ALONE, BOTH, HOST_LRU, SHUFFLED
from bench.policy.scenes import CLASSES, Draw, Scene, mixed
from bench.policy.variants import VARIANTS, Variant
from bench.workloads.mooncake import BLOCK_TOKENS, read_arrivals
from bench.workloads.provenance import provenance
from scalesim_daemon.whatif.costs import H100_QWEN_7B, Costs
from scalesim_daemon.whatif.run import Figures, simulate
from scalesim_daemon.whatif.workload import Prompt

EVERYTHING = 4

Row = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Machine:
    """An engine and how it is used: all calls of a step at once, of one prompt's shape. Of all agents' `footprint`, in
    tokens each, the device holds a quarter and the host tier a half; `steps` count after a warm-up. `traffic`
    says what strangers there are."""

    costs: Costs
    agents: int
    prompt: Prompt
    footprint: int
    steps: int
    seeds: Sequence[int]
    classes: Mapping[str, Draw]
    traffic: Mapping[str, Any] | None = None

    def device_tokens(self, agents: int) -> int:
        """Return what the device holds."""
        # One call's tokens at least.
        return max(int(POOL_SHARE * agents * self.footprint), 2 * (self.prompt.tokens + self.prompt.output))

    def host_tokens(self, agents: int) -> int:
        """Return what a host tier holds."""
        return int(TIER_SHARE * agents * self.footprint)

    def play(self, variant: Variant, scene: Scene, seed: int) -> Figures:
        """Simulate one variant, without pause."""
        workload = variant.workload(scene, self.prompt, seed)
        agents = len(scene.agents)
        device = self.device_tokens(agents)
        if variant.everything_fits:
            device = EVERYTHING * agents * (self.prompt.tokens + self.prompt.output)
        host = self.host_tokens(agents) if variant.host else 0
        return simulate(workload, self.costs, variant.setup, device_tokens=device, host_tokens=host)


def shared(
    machine: Machine,
    path: Path,
    *,
    rate: float = RATE,
    longest: int = LONGEST,
    block_tokens: int = BLOCK_TOKENS,
) -> Machine:
    """Return the machine with one more class of workloads, the village beside the recorded requests of a file: `rate`
    of them in a second, of at most `longest` tokens, 512 recorded ones shrunk to `block_tokens`."""
    arrivals = read_arrivals(path, rate=rate, longest=longest, block_tokens=block_tokens)
    return replace(
        machine,
        classes={**machine.classes, MIXED: partial(mixed, machine.classes[VILLAGE], arrivals)},
        traffic={"rate": rate, "longest": longest, **provenance(path)},
    )


# The paper's setting where it is known: about 500 agents, of which a quarter fits on the device.
H100 = Machine(H100_QWEN_7B, 500, Prompt(), Prompt().private, 15, range(1, 6), dict(CLASSES))


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
    rows = {name: row(played[ALONE], played[name]) for name in variants}
    if {BOTH, SHUFFLED, HOST_LRU} <= set(rows):
        rows[BOTH] |= beside(played[BOTH], played[SHUFFLED], played[HOST_LRU])
    return rows, median(active)


def _play(
    machine: Machine, draw: Callable[[int], Scene], variants: tuple[str, ...], seed: int
) -> tuple[float, dict[str, Figures]]:
    scene = draw(seed)
    return scene.active, {name: machine.play(VARIANTS[name], scene, seed) for name in variants}


def row(alone: Sequence[Figures], variant: Sequence[Figures]) -> Row:
    """Return the medians over the seeds, of the makespan with the interval that holds nine in ten of them; named as in
    `bench.engine.result.Numbers`."""
    pairs = list(zip(alone, variant, strict=True))
    orders = [figures.order for figures in variant if figures.order is not None]
    return {
        **spread("makespan_ratio", (one.makespan / other.makespan for one, other in pairs)),
        "ttft_mean_ratio": median(one.ttft_mean / other.ttft_mean for one, other in pairs),
        "ttft_p95_ratio": median(one.ttft_p95 / other.ttft_p95 for one, other in pairs),
        "cached_share": median(figures.cached for figures in variant),
        "recomputed_tokens_ratio": median(other.computed / max(1, one.computed) for one, other in pairs),
        "order_accuracy": median(orders) if orders else None,
        "prefetch_precision": share(
            (figures.prefetches_used for figures in variant), (figures.prefetches for figures in variant)
        ),
        "prefetch_waste": share(
            (figures.wasted_tokens for figures in variant), (figures.prefetched_tokens for figures in variant)
        ),
    }


def beside(both: Sequence[Figures], shuffled: Sequence[Figures], host_lru: Sequence[Figures]) -> Row:
    """Return what `both` is compared with besides the engine alone, each seed with itself."""
    pairs = zip(shuffled, both, strict=True)
    return {
        **spread("over_shuffled", (one.makespan / other.makespan for one, other in pairs)),
        "ttft_over_host_lru": median(
            one.ttft_mean / other.ttft_mean for one, other in zip(host_lru, both, strict=True)
        ),
    }


def share(parts: Iterable[int], wholes: Iterable[int]) -> float | None:
    """Return what all parts are of all wholes; None where there is nothing."""
    whole = sum(wholes)
    return sum(parts) / whole if whole else None


def spread(name: str, values: Iterable[float]) -> Row:
    """Return the median by this name, and the interval that holds nine in ten."""
    known = list(values)
    low, high = interval(known)
    return {name: median(known), f"{name}_low": low, f"{name}_high": high}


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 5 % and 95 % quantiles, read off between the values; of one value, that value twice."""
    if len(values) == 1:
        return values[0], values[0]
    cuts = quantiles(values, n=20, method="inclusive")
    return cuts[0], cuts[-1]
