"""`python -m bench.scale.measure`: unit costs of dues, changes, leases and decisions, on this machine.

They are what `python -m bench.scale` and docs/scale.md calculate with. What each includes stands at the head of the
module that measures it: `bench/scale/store_units.py` and `daemon_units.py`. Each figure is the median of the rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.daemon.figures import Part, Summary, summed_up
from bench.scale.costs import Conditions, Figures, medians, read, write
from bench.scale.daemon_units import daemon_units
from bench.scale.server import version
from bench.scale.store_units import store_units

ROUNDS = 3
PARTS: Mapping[str, Part] = {"store": store_units, "daemon": daemon_units}


def main() -> None:
    """Measure with the flags of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.scale.measure", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each figure is taken")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=PARTS,
        default=list(PARTS),
        help="what is measured: everything by default",
    )
    parser.add_argument(
        "--out", type=Path, help="a file for the figures; of parts left out it keeps what it has"
    )
    given = parser.parse_args()
    console = Console(stderr=True)
    found: dict[str, Summary] = {}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    ) as progress:
        for name in given.parts:
            found |= summed_up(list(progress.track(_part(name, given), given.rounds, description=name)))
    console.print(_table(found))
    before = read(given.out) if given.out is not None and given.out.exists() else None
    conditions = Conditions(
        rounds=(before.conditions.rounds if before else {}) | dict.fromkeys(given.parts, given.rounds),
        seed=given.seed,
        cores=os.cpu_count() or 1,
        python=sys.version.split()[0],
        valkey=version(),
        load=round(os.getloadavg()[2], 1),
        played=datetime.now(UTC).date().isoformat(),
    )
    if given.out is not None:
        write(Figures(conditions, (before.figures if before else {}) | found), given.out)
    print(
        json.dumps(
            {name: float(f"{value:.4g}") for name, value in medians(Figures(conditions, found)).items()}
        )
    )


def _part(name: str, given: argparse.Namespace) -> Iterator[Mapping[str, float]]:
    return PARTS[name](given.rounds, given.seed)


def _table(found: Mapping[str, Summary]) -> Table:
    table = Table(title="medians of the rounds")
    for column in ("", "median", "least", "greatest"):
        table.add_column(column, justify="right" if column else "left")
    for key, one in found.items():
        table.add_row(key, *(f"{number:,.4g}" for number in (one.median, one.least, one.greatest)))
    return table


if __name__ == "__main__":
    main()
