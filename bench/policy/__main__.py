"""`python -m bench.policy`: what policies of eviction miss, and what the daemon's own code gains on simulated engines.

Nothing here is measured on an engine; what was measured on one is simulated under the same conditions.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.engine.places import POOL_SHARE, TIER_SHARE
from bench.engine.result import Result, read
from bench.policy.items import KINDS, drawn
from bench.policy.misses import REFERENCES, by_due, by_reference
from bench.policy.mixed import BY_SIZE, POLICIES, lost_by_policy, lost_by_reference
from bench.policy.simulated import H100, Machine, compare, shared
from bench.policy.sweeps import LARGEST, POPULATIONS, sweep_active, sweep_agents
from bench.policy.tables import OURS, class_table, equal_table, mixed_table, sweep_table
from bench.policy.traces import TRACES
from bench.policy.twin import SEEDS, twin
from bench.policy.variants import VARIANTS
from bench.workloads.mooncake import RECORDED_BLOCK

# Of the agents, how many the cache holds; below 10 the parts of W-TinyLFU's hold nothing. A tighter one, where the
# largest item may take all of it, is for the smallest trace.
SHARES = (0.5, 0.25)
TIGHT = 0.1
SMALLEST = 10
SEED = 1
MEASURED = "engine-vllm.json"
GDSF = ("GDSF, misses", "GDSF, seconds")


def main() -> None:
    """Count, simulate, print and write."""
    parser = argparse.ArgumentParser(prog="python -m bench.policy", description=__doc__)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="a file for the JSON, beside the engine's figures if there are any",
    )
    parser.add_argument(
        "--scale",
        action="store_true",
        help="also 10,000 and 100,000 agents, in largest.json: 10 minutes more",
    )
    parser.add_argument(
        "--traffic",
        type=Path,
        help="recorded requests (Mooncake's format) for the class mixed, which needs them",
    )
    given = parser.parse_args()
    given.out.parent.mkdir(parents=True, exist_ok=True)
    console = Console(width=150)
    equal = list(equal_rows(SEED))
    console.print(equal_table(equal))
    mixed = list(mixed_rows(SEED))
    console.print(mixed_table(mixed))
    with ProcessPoolExecutor() as pool:
        engines = {}
        h100, same = H100, twin(_measured(given.out.with_name(MEASURED)))
        if given.traffic is not None:
            h100 = shared(h100, given.traffic, rate=1.0, longest=8192, block_tokens=RECORDED_BLOCK)
            same = shared(same, given.traffic)
        for name, machine in {"h100": h100, "cpu": replace(same, seeds=SEEDS)}.items():
            engines[name] = engine(name, machine, pool)
            for title, found in engines[name]["classes"].items():
                console.print(class_table(name, title, engines[name]["active"][title], found))
        active = sweep_active(pool, _tick)
        agents = sweep_agents(POPULATIONS, pool, _tick)
        console.print(sweep_table("how many call", active))
        console.print(sweep_table("how many there are", agents))
        sweeps = {"active": active, "agents": agents}
        _write(
            given.out,
            {
                "equal": equal,
                "mixed": mixed,
                "engines": engines,
                "twin": engine("twin", same, pool),
                "sweeps": sweeps,
            },
        )
        if given.scale:
            largest = sweep_agents(LARGEST, pool, _tick)
            console.print(sweep_table("how many there are", largest))
            _write(given.out.with_name("largest.json"), {"agents": largest})


def equal_rows(seed: int) -> Iterator[dict[str, Any]]:
    """Count the misses of items of equal size, on a trace of each class."""
    for name, draw in TRACES.items():
        trace = draw(seed)
        for capacity in (max(SMALLEST, int(share * trace.agents)) for share in SHARES):
            misses = {policy: by_reference(policy, trace, capacity) for policy in REFERENCES}
            misses[OURS] = by_due(trace, capacity)
            yield {
                "trace": name,
                "agents": trace.agents,
                "capacity": capacity,
                "calls": len(trace.calls()),
                "misses": misses,
                "over_belady": misses[OURS] / misses["Belady"] - 1,
            }


def mixed_rows(seed: int) -> Iterator[dict[str, Any]]:
    """Add up what misses cost where items are of drawn sizes. The cache is a share of their bytes: what ten items of
    average size take or more, and for the smallest trace also less."""
    for kind in KINDS:
        for name, draw in TRACES.items():
            trace = draw(seed)
            items = drawn(kind, sorted(set(trace.calls())), seed)
            total = sum(item.size for item in items.values())
            shares = [max(SMALLEST / len(items), share) for share in SHARES]
            for share in shares + ([TIGHT] if TIGHT * len(items) < SMALLEST else []):
                seconds = {
                    policy: lost_by_reference(policy, trace, items, int(share * total)) for policy in BY_SIZE
                }
                seconds |= {
                    policy: lost_by_policy(policy, trace, items, int(share * total)) for policy in POLICIES
                }
                best = min(seconds[policy] for policy in GDSF)
                over = seconds["by rent"] / best - 1
                yield {
                    "trace": name,
                    "items": kind,
                    "share": share,
                    "held": round(share * len(items), 1),
                    "seconds": seconds,
                    "over_gdsf": over,
                }


def engine(name: str, machine: Machine, pool: Executor) -> dict[str, Any]:
    """Simulate every variant of every class on one engine."""
    classes, active = {}, {}
    for title, draw in machine.classes.items():
        tick = partial(_tell, f"{name}, {title}")
        drawn_by = partial(draw, machine.agents, machine.steps)
        classes[title], active[title] = compare(machine, drawn_by, machine.seeds, list(VARIANTS), pool, tick)
    return {
        "costs": machine.costs.name,
        "source": machine.costs.source,
        "agents": machine.agents,
        "device_tokens": machine.device_tokens(machine.agents),
        "host_tokens": machine.host_tokens(machine.agents),
        "footprint": machine.footprint,
        "pool_share": POOL_SHARE,
        "tier_share": TIER_SHARE,
        "prompt": asdict(machine.prompt),
        "steps": machine.steps,
        "seeds": list(machine.seeds),
        "active": active,
        "traffic": machine.traffic,
        "classes": classes,
    }


def _measured(path: Path) -> Result | None:
    return read(path) if path.exists() else None


def _write(path: Path, figures: dict[str, Any]) -> None:
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _tick(what: str) -> None:
    print(what, file=sys.stderr)


def _tell(what: str, which: str) -> None:
    _tick(f"{what}, {which}")


if __name__ == "__main__":
    main()
