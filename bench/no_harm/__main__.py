"""`python -m bench.no_harm`: what traffic that nobody announced notices of a daemon that prefetches beside it.

Background requests reach the engine at random moments, in blocks with the daemon and without it, the same
arrivals and prompt lengths in both blocks of a pair. A village of agents that never call keeps the daemon busy.
Times are in seconds; a ratio is with the daemon over the engine alone, so 1 means that nothing is noticed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.demo.lab import engine
from bench.no_harm.background import ARRIVALS_PER_SECOND
from bench.no_harm.measure import ENGINE, Outcome, measure, summary
from bench.rig.daemon import DaemonProcess


def main() -> None:
    """Measure with the flags of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.no_harm", description=__doc__)
    parser.add_argument("--pairs", type=int, default=5, help="how often both kinds of block are run")
    parser.add_argument("--seconds", type=float, default=30.0, help="length of a block")
    parser.add_argument("--seed", type=int, default=1, help="of arrivals and prompts")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="no-harm-") as name:
        folder = Path(name)
        with engine("vllm", "ours", folder / "engine") as url:
            daemon = DaemonProcess(folder, url)
            _print(asyncio.run(measure(url, daemon, given.pairs, given.seconds, given.seed)))


def _print(outcome: Outcome) -> None:
    table = Table(title=f"background traffic on {ENGINE}, {ARRIVALS_PER_SECOND:g} request a second")
    for column in ("", "alone", "with sidecar", "ratio"):
        table.add_column(column, justify="right" if column else "left")
    alone, beside, figures = outcome.alone, outcome.beside, summary(outcome)
    table.add_row("requests", f"{len(alone.requests)}", f"{len(beside.requests)}")
    table.add_row("failed requests", f"{alone.failed}", f"{beside.failed}")
    for name, one, other, ratio in (
        ("p95 TTFT", alone.ttft_p95, beside.ttft_p95, figures["ttft_p95_ratio"]),
        ("p95 time between tokens", alone.gap_p95, beside.gap_p95, figures["itl_p95_ratio"]),
    ):
        table.add_row(name, f"{one * 1000:.1f} ms", f"{other * 1000:.1f} ms", f"{ratio:.2f}")
    table.add_row("prefetch tokens computed", "", f"{outcome.prefetched_tokens}")
    table.add_row("time with speculative work", "", f"{outcome.speculative_share:.1%}")
    table.add_row("requests that met it", "", f"{outcome.met:.1%}")
    Console(file=sys.stdout).print(table)
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
