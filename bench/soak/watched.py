"""`python -m bench.soak.watched FILE ...`: `scalesimd ...`, and what only the process itself can tell, on SIGUSR1.

Each signal adds a line of JSON to the file: how many blocks of memory Python's objects take, how many tasks asyncio
has, and the longest cycle since the line before. With PYTHONTRACEMALLOC set, SIGUSR2 writes beside it where the most
memory was taken since the last SIGUSR2: that names a leak.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import tracemalloc
from pathlib import Path
from types import FrameType

from scalesim_daemon.commands import scalesimd
from scalesim_daemon.timings import Timings

SHOWN = 40


class Watch:
    """Stands where cycles are timed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._longest = 0.0
        self._before: tracemalloc.Snapshot | None = None
        noted = Timings.cycle

        def cycle(timings: Timings, seconds: float) -> None:
            self._longest = max(self._longest, seconds)
            noted(timings, seconds)

        setattr(Timings, "cycle", cycle)  # noqa: B010  # mypy takes no method for another
        signal.signal(signal.SIGUSR1, self._tell)
        signal.signal(signal.SIGUSR2, self._trace)

    def _tell(self, number: int, frame: FrameType | None) -> None:
        try:
            tasks = len(asyncio.all_tasks())
        except RuntimeError:  # The loop doesn't run yet, or no more.
            tasks = 0
        line = {"blocks": sys.getallocatedblocks(), "tasks": tasks, "longest_cycle": self._longest}
        self._longest = 0.0
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _trace(self, number: int, frame: FrameType | None) -> None:
        if not tracemalloc.is_tracing():
            return
        gc.collect()
        now, before = tracemalloc.take_snapshot(), self._before
        self._before = now
        if before is not None:
            found = now.compare_to(before, "traceback")[:SHOWN]
            lines = [line for one in found for line in (str(one), *one.traceback.format())]
            self._path.with_suffix(".trace").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    Watch(Path(sys.argv.pop(1)))
    scalesimd()
