"""`python -m bench.policy`: misses of each policy on a trace of each class of workload; the last line is JSON."""

from __future__ import annotations

import argparse
import json

from rich.console import Console
from rich.table import Table

from bench.policy.misses import REFERENCES, by_due, by_reference
from bench.policy.traces import TRACES

OURS = "by due"
# Of the agents, how many the cache holds; below 10 the parts of W-TinyLFU's hold nothing.
SHARES = (0.5, 0.25)
SMALLEST = 10


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.policy", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rows = []
    for name, draw in TRACES.items():
        trace = draw(given.seed)
        for capacity in (max(SMALLEST, int(share * trace.agents)) for share in SHARES):
            misses = {policy: by_reference(policy, trace, capacity) for policy in REFERENCES}
            misses[OURS] = by_due(trace, capacity)
            rows.append(
                {
                    "trace": name,
                    "agents": trace.agents,
                    "capacity": capacity,
                    "calls": sum(map(len, trace.steps)),
                    "misses": misses,
                    "over_belady": misses[OURS] / misses["Belady"] - 1,
                }
            )
    Console(width=140).print(_table(rows))
    print(json.dumps({"seed": given.seed, "rows": rows}))


def _table(rows: list[dict[str, object]]) -> Table:
    table = Table(box=None, pad_edge=False, title="misses; items of equal size, due told exactly, in steps")
    for title in ("trace", "agents", "cache", "calls", *REFERENCES, OURS, "over Belady"):
        table.add_column(title, justify="left" if title == "trace" else "right")
    for row in rows:
        misses = row["misses"]
        assert isinstance(misses, dict)
        first = (row["trace"], row["agents"], row["capacity"], row["calls"])
        table.add_row(*map(str, first), *map(str, misses.values()), f"{row['over_belady']:+.2%}")
    return table


if __name__ == "__main__":
    main()
