"""`python -m bench.fuzz`: nonsense for every decoder of what others wrote.

Inputs are valid ones, changed: from the golden bytes of our wire and of both engines' KV events, their metrics,
recordings, updates of the paper's front end, and configuration files. No reader may raise anything but what it
documents, nor take long, nor much memory. Each begins with messages of the full size that cost as much as a message
can. Equal seeds give equal inputs. The last line is JSON; a finding ends the command with status 1.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.fuzz.drive import Outcome, drive
from bench.fuzz.readers import READERS

PART = 250_000
"""Inputs of one process: its peak of memory is theirs alone."""


def main() -> None:
    """Fuzz with the flags of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=200_000, help="how many in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--readers", nargs="*", choices=[reader.name for reader in READERS], help="only these"
    )
    given = parser.parse_args()
    began = time.monotonic()
    names = given.readers or [reader.name for reader in READERS]
    outcomes: dict[str, list[Outcome]] = {name: [] for name in names}
    # Each part has a process of its own.
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=spawning, max_tasks_per_child=1) as pool:
        parts = list(_parts(names, given.inputs, given.seed))
        for outcome in pool.map(drive, *zip(*parts, strict=True)):
            outcomes[outcome.reader].append(outcome)
    result = _result(outcomes, time.monotonic() - began)
    _print(outcomes)
    print(json.dumps(result))
    sys.exit(1 if result["findings"] else 0)


def _parts(names: list[str], inputs: int, seed: int) -> Iterator[tuple[str, str, int]]:
    chosen = [reader for reader in READERS if reader.name in names]
    shares = sum(reader.share for reader in chosen)
    for reader in chosen:
        left, part = max(1, round(inputs * reader.share / shares)), 0
        while left > 0:
            yield reader.name, f"{seed} {reader.name} {part}", min(PART, left)
            left, part = left - PART, part + 1


def _result(outcomes: dict[str, list[Outcome]], seconds: float) -> dict[str, Any]:
    every = [outcome for parts in outcomes.values() for outcome in parts]
    return {
        "inputs": sum(outcome.inputs for outcome in every),
        "readers": len(outcomes),
        "refused": sum(outcome.refused for outcome in every),
        "findings": sum(len(outcome.findings) for outcome in every),
        "slowest_seconds": round(max(outcome.slowest for outcome in every), 3),
        "peak_mib": max(outcome.peak_bytes for outcome in every) >> 20,
        "seconds": round(seconds, 1),
    }


def _print(outcomes: dict[str, list[Outcome]]) -> None:
    console, table = (
        Console(width=120),
        Table("reader", "inputs", "refused", "slowest", "peak memory", "findings"),
    )
    for name, parts in outcomes.items():
        table.add_row(
            name,
            f"{sum(part.inputs for part in parts):,}",
            f"{sum(part.refused for part in parts):,}",
            f"{max(part.slowest for part in parts) * 1000:,.0f} ms",
            f"{max(part.peak_bytes for part in parts) >> 20} MiB",
            str(sum(len(part.findings) for part in parts)),
        )
        for what, data in ((what, data) for part in parts for what, data in part.findings.items()):
            console.print(f"{name}: {what}\n  {data}", markup=False)
    console.print(table)


if __name__ == "__main__":
    main()
