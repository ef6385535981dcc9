"""`python -m bench.fuzz`: nonsense for every decoder of what others wrote.

Inputs are valid ones, changed: from the golden bytes of our wire and of both engines' KV events, their metrics,
recordings, updates of the paper's front end, and configuration files. No reader may raise anything but what it
documents, nor take long, nor much memory, nor end its process. Each begins with messages of the full size that cost as
much as a message can. A part of the inputs has a process of its own, as many at a time as there are cores, and a seed
of its own that follows from the one seed: equal seeds give equal inputs. The last line is JSON; a finding ends the
command with status 1.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bench.fuzz.drive import Current, Outcome
from bench.fuzz.readers import READERS

PART = 500_000
"""Inputs of one process: its peak of memory is theirs alone."""
START_SECONDS = 300.0
SECONDS_PER_INPUT = 0.02
"""A process may take so long, on a machine that does much else; an input that never ends takes longer."""


class Part(NamedTuple):
    """So many inputs for a reader, drawn by a seed."""

    reader: str
    seed: str
    inputs: int


def main() -> None:
    """Fuzz with the flags of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=200_000, help="how many in all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="a file for the figures, with their conditions")
    parser.add_argument(
        "--readers", nargs="*", choices=[reader.name for reader in READERS], help="only these"
    )
    given = parser.parse_args()
    began = time.monotonic()
    outcomes = _run(list(parts(given.readers, given.inputs, given.seed)))
    seconds = time.monotonic() - began
    result = {**summed_up(outcomes), "seconds": round(seconds, 1)}
    _print(outcomes)
    if given.out is not None:
        _write(given.out, given.seed, result, outcomes)
    print(json.dumps(result))
    sys.exit(1 if result["findings"] else 0)


def parts(names: Sequence[str] | None, inputs: int, seed: int) -> Iterator[Part]:
    """Yield what the processes do, one reader's part after another's, so that all end at about the same time."""
    chosen = [reader for reader in READERS if names is None or reader.name in names]
    shares = sum(reader.share for reader in chosen)
    left = {reader.name: max(1, round(inputs * reader.share / shares)) for reader in chosen}
    number = 0
    while any(left.values()):
        for name in left:
            if left[name] > 0:
                yield Part(name, f"{seed} {name} {number}", min(PART, left[name]))
                left[name] = max(0, left[name] - PART)
        number += 1


def run(part: Part, folder: Path) -> Outcome:
    """Let a process of its own do a part. Whatever ends it before its time is a finding, with the input that it was
    at."""
    kept = folder / f"{part.seed.replace(' ', '-')}.input"
    command = [sys.executable, "-m", "bench.fuzz.drive", part.reader, part.seed, str(part.inputs), str(kept)]
    within = START_SECONDS + SECONDS_PER_INPUT * part.inputs
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=within)
    except subprocess.TimeoutExpired:
        return _killed(part, kept, f"not done within {within:.0f} s")
    if done.returncode:
        return _killed(part, kept, f"ended by {_how(done.returncode)}")
    return msgspec.json.decode(done.stdout, type=Outcome)


def _how(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"status {status}"


def _killed(part: Part, kept: Path, what: str) -> Outcome:
    outcome = Outcome(part.reader)
    outcome.found(what, Current.read(kept), f"seed {part.seed!r}:")
    return outcome


def _run(todo: Sequence[Part]) -> list[Outcome]:
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f} inputs, {task.fields[findings]} findings"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    outcomes: list[Outcome] = []
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-") as name,
        ThreadPoolExecutor(os.cpu_count()) as pool,
        progress,
    ):
        task = progress.add_task("fuzz", total=sum(part.inputs for part in todo), findings=0)
        for outcome in pool.map(lambda part: run(part, Path(name)), todo):
            outcomes.append(outcome)
            found = sum(len(one.findings) for one in outcomes)
            progress.update(task, advance=outcome.inputs, findings=found)
    return outcomes


def summed_up(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return the figures of all parts. `reading_share` is the part of the processor's time that readers took: the
    rest makes inputs, and weighs what they take."""
    cpu = sum(one.cpu for one in outcomes)
    return {
        "inputs": sum(one.inputs for one in outcomes),
        "readers": len({one.reader for one in outcomes}),
        "refused": sum(one.refused for one in outcomes),
        "findings": sum(len(one.findings) for one in outcomes),
        "slowest_seconds": round(max(one.slowest for one in outcomes), 3),
        "peak_mib": max(one.peak_bytes for one in outcomes) >> 20,
        "reading_share": round(sum(one.reading for one in outcomes) / cpu, 2) if cpu else 0.0,
    }


def _by_reader(outcomes: Sequence[Outcome]) -> Mapping[str, list[Outcome]]:
    found: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        found.setdefault(outcome.reader, []).append(outcome)
    return found


def _write(path: Path, seed: int, result: Mapping[str, Any], outcomes: Sequence[Outcome]) -> None:
    conditions = {
        "seed": seed,
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "played": datetime.now(UTC).date().isoformat(),
    }
    readers = {name: summed_up(some) for name, some in _by_reader(outcomes).items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    figures = {"conditions": conditions, "figures": result, "readers": readers}
    path.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def _print(outcomes: Sequence[Outcome]) -> None:
    console, table = (
        Console(width=120),
        Table("reader", "inputs", "refused", "slowest", "peak memory", "reading", "findings"),
    )
    for name, some in _by_reader(outcomes).items():
        sums = summed_up(some)
        table.add_row(
            name,
            f"{sums['inputs']:,}",
            f"{sums['refused']:,}",
            f"{sums['slowest_seconds'] * 1000:,.0f} ms",
            f"{sums['peak_mib']} MiB",
            f"{sums['reading_share']:.0%}",
            str(sums["findings"]),
        )
        for what, data in ((what, data) for part in some for what, data in part.findings.items()):
            console.print(f"{name}: {what}\n  {data}", markup=False)
    console.print(table)


if __name__ == "__main__":
    main()
