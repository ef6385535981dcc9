"""`python -m bench.daemon`: throughput, latency and memory of the daemon, against bare loops in the same run.

A ratio holds on any machine as far as its parts slow down alike; each is taken within a round, and the figure is the
median of the rounds. Each part has a process of its own. What a figure includes, and why its bare loop is fair, stands
at the head of the module that measures it (`bench/daemon/*.py`). The engine is the emulated one throughout: nothing
here says how fast an engine is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.daemon.apart import rounds_apart
from bench.daemon.figures import PARTS, TARGETS, Summary, summed_up

ROUNDS = 5


def main() -> None:
    """Measure with the flags of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.daemon", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each figure is taken")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=list(PARTS),
        help="what is measured: everything by default",
    )
    parser.add_argument("--out", type=Path, help="a file for the figures, with their conditions")
    given = parser.parse_args()
    console = Console(stderr=True)
    found: dict[str, Summary] = {}
    with _progress(console) as progress:
        for name in given.parts:
            task = progress.add_task(name, total=given.rounds)
            rounds = []
            for one in rounds_apart(PARTS[name], given.rounds, given.seed):
                rounds.append(one)
                progress.advance(task)
            found |= summed_up(rounds)
    console.print(_table(found))
    figures = {key: round(found[key].median, 3) if key in found else None for key in TARGETS}
    if given.out is not None:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        conditions = {
            "rounds": given.rounds,
            "seed": given.seed,
            "cores": os.cpu_count(),
            "python": sys.version.split()[0],
            "played": datetime.now(UTC).date().isoformat(),
        }
        beside = {key: round(one.median, 3) for key, one in found.items() if key not in TARGETS}
        given.out.write_text(
            json.dumps({"conditions": conditions, "figures": figures, "beside": beside}, indent=1) + "\n",
            encoding="utf-8",
        )
    print(json.dumps(figures))


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def _table(found: Mapping[str, Summary]) -> Table:
    table = Table(title="medians of the rounds")
    for column in ("", "median", "least", "greatest", "target", ""):
        table.add_column(column, justify="right" if column else "left")
    for key, one in found.items():
        target = TARGETS.get(key)
        verdict = "" if target is None else "met" if target.met(one.median) else "missed"
        numbers = (f"{number:,.3g}" for number in (one.median, one.least, one.greatest))
        table.add_row(key, *numbers, str(target or ""), verdict, style="bold" if target else "dim")
    return table


if __name__ == "__main__":
    main()
