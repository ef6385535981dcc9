"""A lane at work, in a process that a test ends: `python -m tests.bench.lane_scene FOLDER`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from bench.chaos.lanes import heed_signals, lanes


def work(folder: str) -> None:
    """Say that it has begun, and, whatever ends it, that it has ended."""
    try:
        (Path(folder) / "began").touch()
        signal.pause()
    finally:
        (Path(folder) / "ended").touch()


if __name__ == "__main__":
    heed_signals()
    with lanes(1) as pool:
        pool.submit(work, sys.argv[1]).result()
