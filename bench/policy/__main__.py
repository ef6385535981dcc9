"""`python -m bench.policy`: what policies of eviction miss, and what the daemon's own code gains on simulated engines.

Nothing here is measured on an engine. The last line is JSON; `--out` writes it to a file too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from bench.policy.items import KINDS, drawn
from bench.policy.misses import REFERENCES, by_due, by_reference
from bench.policy.mixed import BY_SIZE, POLICIES, lost_by_policy, lost_by_reference
from bench.policy.scenes import CLASSES
from bench.policy.simulated import IN_HOST, MACHINES, RESIDENT, compare
from bench.policy.sweeps import sweep_active, sweep_agents
from bench.policy.tables import OURS, class_table, equal_table, mixed_table, sweep_table
from bench.policy.traces import TRACES
from bench.policy.variants import VARIANTS

# Of the agents, how many the cache holds; below 10 the parts of W-TinyLFU's hold nothing.
SHARES = (0.5, 0.25)
SMALLEST = 10
GDSF = ("GDSF, misses", "GDSF, seconds")


def main() -> None:
    """Count, simulate, print and write."""
    parser = argparse.ArgumentParser(prog="python -m bench.policy", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--scale", action="store_true", help="also 10,000 and 100,000 agents: some minutes more"
    )
    parser.add_argument("--out", type=Path, help="a file for the JSON")
    given = parser.parse_args()
    console = Console(width=150)
    equal = list(equal_rows(given.seed))
    console.print(equal_table(equal))
    mixed = list(mixed_rows(given.seed))
    console.print(mixed_table(mixed))
    with ProcessPoolExecutor() as pool:
        engines = {}
        for name in MACHINES:
            engines[name] = engine(name, given.seed, pool)
            for title, found in engines[name]["classes"].items():
                console.print(class_table(name, title, engines[name]["active"][title], found))
        active = sweep_active(given.seed, pool, _tick)
        agents = sweep_agents(given.seed, given.scale, pool, _tick)
    console.print(sweep_table("how many call", active))
    console.print(sweep_table("how many there are", agents))
    result = {
        "simulated": True,
        "seed": given.seed,
        "equal": equal,
        "mixed": mixed,
        "engines": engines,
        "sweeps": {"active": active, "agents": agents},
    }
    line = json.dumps(result)
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(line)


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
    """Add up what misses cost where items are of drawn sizes; the cache is a share of their bytes, and of at least ten
    items of average size."""
    for kind in KINDS:
        for name, draw in TRACES.items():
            trace = draw(seed)
            items = drawn(kind, sorted(set(trace.calls())), seed)
            total = sum(item.size for item in items.values())
            for share in (max(SMALLEST / len(items), share) for share in SHARES):
                seconds = {
                    policy: lost_by_reference(policy, trace, items, int(share * total)) for policy in BY_SIZE
                }
                seconds |= {
                    policy: lost_by_policy(policy, trace, items, int(share * total)) for policy in POLICIES
                }
                best = min(seconds[policy] for policy in GDSF)
                over = seconds["by rent"] / best - 1
                yield {"trace": name, "items": kind, "share": share, "seconds": seconds, "over_gdsf": over}


def engine(name: str, seed: int, pool: Executor) -> dict[str, Any]:
    """Simulate every variant of every class on one engine."""
    machine = MACHINES[name]
    classes, active = {}, {}
    for title, draw in CLASSES.items():
        seeds = range(seed, seed + machine.seeds)
        tick = partial(_tell, f"{name}, {title}")
        drawn_by = partial(draw, machine.agents, machine.steps)
        classes[title], active[title] = compare(machine, drawn_by, seeds, list(VARIANTS), pool, tick)
    return {
        "costs": machine.costs.name,
        "source": machine.costs.source,
        "agents": machine.agents,
        "device_tokens": machine.device_tokens(machine.agents),
        "host_tokens": machine.host_tokens(machine.agents),
        "resident_share": RESIDENT,
        "host_share": IN_HOST,
        "concurrency": machine.concurrency,
        "prompt": asdict(machine.prompt),
        "steps": machine.steps,
        "seeds": machine.seeds,
        "active": active,
        "classes": classes,
    }


def _tick(what: str) -> None:
    print(what, file=sys.stderr)


def _tell(what: str, which: str) -> None:
    _tick(f"{what}, {which}")


if __name__ == "__main__":
    main()
