"""`python -m bench.daemon.hot`: where the daemon's time goes while it takes events in, by the profiler.

The same flood as in `ingest.py`, taken in under cProfile. Its clock is slowed by what it counts, most where functions
are small: shares tell where to look, and how many calls an event costs is exact.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from cProfile import Profile
from pathlib import Path
from pstats import Stats

from bench.daemon.ingest import AGENTS, EVENTS, time_daemon
from bench.daemon.said import speaking

SHOWN = 25


def main() -> None:
    """Profile with the flags of the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.daemon.hot", description=__doc__)
    parser.add_argument("--per-message", type=int, choices=EVENTS, default=100)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    few, many = (_profiled(given.per_message, count, given.seed) for count in _counts(given.per_message))
    many.sort_stats("tottime").print_stats(SHOWN)
    fewer, more = _counts(given.per_message)
    # What a start and an end take is in both.
    print(f"function calls per event: {(_calls(many) - _calls(few)) / (more - fewer):.1f}")


def _counts(per_message: int) -> tuple[int, int]:
    return EVENTS[per_message] // 2, EVENTS[per_message]


def _profiled(per_message: int, count: int, seed: int) -> Stats:
    with tempfile.TemporaryDirectory(prefix="hot-") as name:
        folder, profile = Path(name), Profile()
        with speaking("flood", f"ipc://{folder}/flood", AGENTS, count, per_message, seed):
            profile.runcall(asyncio.run, time_daemon(folder, 1 + count // per_message, {"enabled": False}))
        return Stats(profile)


def _calls(stats: Stats) -> int:
    total: int = stats.total_calls  # type: ignore[attr-defined]  # typeshed lacks it
    return total


if __name__ == "__main__":
    main()
