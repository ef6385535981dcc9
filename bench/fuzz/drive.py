"""Lets one reader read, and notes what it should not have done.

`python -m bench.fuzz.drive READER SEED COUNT FILE` does so in a process of its own, and prints the outcome as JSON. The
file always has the input that is being read: it outlives a process that an input kills.
"""

from __future__ import annotations

import mmap
import resource
import sys
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from random import Random
from time import process_time, thread_time
from traceback import extract_tb

import msgspec

from bench.fuzz.mutate import Mutator
from bench.fuzz.readers import Reader, reader

SECONDS_PER_BYTE = 2e-6
"""An input may take so much longer, of this thread's processor: a message of full size 9 s."""
AGAIN = 2
"""An input that takes longer is read so often again, and its cost is the least: Python's garbage collector runs where
objects are made, and goes through all that the process holds, whoever made it."""
BYTES = 8 * 2**20
BYTES_PER_BYTE = 160
"""An input may take so much memory: a byte of msgpack or JSON makes an object of 56 bytes, its place in a list, and an
error that quotes it."""
MOST_BYTES = 2 << 30
"""What a process may map in all. Beyond it Python raises `MemoryError`, which is a finding."""
TRACED = 2_000
"""Of so many small inputs the memory of one is looked at: that makes it several times slower."""
SHOWN = 400
KEPT = 20

Keep = Callable[[bytes], object]


class Outcome(msgspec.Struct):
    """What came of the inputs of one reader. `findings` are what it may not do, each with the input in hexadecimal;
    `peak_bytes` the most that this process has held; `slowest`, what was spent `reading` and in all (`cpu`) in
    seconds."""

    reader: str
    inputs: int = 0
    refused: int = 0
    findings: dict[str, str] = {}
    slowest: float = 0.0
    reading: float = 0.0
    cpu: float = 0.0
    peak_bytes: int = 0

    def found(self, what: str, data: bytes, detail: str = "") -> None:
        """Note one: the first of its kind, with its input."""
        if len(self.findings) < KEPT:
            shown = f"{data[:SHOWN].hex()}{'...' if len(data) > SHOWN else ''}"
            self.findings.setdefault(what, f"{detail} {shown}".lstrip())


class Current:
    """The input that is being read, in a file."""

    def __init__(self, path: Path, largest: int) -> None:
        with path.open("w+b") as file:
            file.truncate(8 + largest)
            self._map = mmap.mmap(file.fileno(), 8 + largest)

    def keep(self, data: bytes) -> None:
        """Put an input in the place of the one before."""
        kept = data[: len(self._map) - 8]
        self._map[: 8 + len(kept)] = len(kept).to_bytes(8, "big") + kept

    @staticmethod
    def read(path: Path) -> bytes:
        """Return the input that was kept last, nothing where there was none."""
        kept = path.read_bytes() if path.exists() else b""
        return kept[8 : 8 + int.from_bytes(kept[:8], "big")]


def drive(name: str, seed: str, count: int, keep: Keep = bytes) -> Outcome:
    """Give a reader its bombs, and then `count` inputs that `seed` makes. Each is given to `keep` first."""
    began = process_time()
    subject = reader(name)
    outcome, read = Outcome(name), subject.make()
    for bomb in subject.form.bombs(subject.largest):
        keep(bomb)
        _read(subject, read, bomb, outcome)
        _weigh(subject, read, bomb, outcome)
    mutator = Mutator(Random(seed), subject.examples(), subject.form)
    while outcome.inputs < count:
        data = mutator.next()
        keep(data)
        _read(subject, read, data, outcome)
        if outcome.inputs % TRACED == 0:
            _weigh(subject, read, data, outcome)
    outcome.cpu = process_time() - began
    outcome.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return outcome


def _read(subject: Reader, read: Callable[[bytes], object], data: bytes, outcome: Outcome) -> None:
    began = thread_time()
    try:
        read(data)
    except subject.refuses:
        outcome.refused += 1
    except Exception as error:  # noqa: BLE001  # What it may raise stands in `refuses`; whatever else is what we look for.
        place = extract_tb(error.__traceback__)[-1]
        where = f"{place.filename.rpartition('/')[2]}:{place.lineno}"
        outcome.found(f"{type(error).__name__} at {where}", data, str(error)[:SHOWN])
    spent = thread_time() - began
    outcome.inputs += 1
    outcome.reading += spent
    most = subject.seconds + SECONDS_PER_BYTE * len(data)
    if spent > most:
        spent = min(spent, *(_spent(read, data) for _ in range(AGAIN)))
    outcome.slowest = max(outcome.slowest, spent)
    if spent > most:
        outcome.found("too slow", data, f"{len(data)} bytes took {spent:.1f} s:")


def _spent(read: Callable[[bytes], object], data: bytes) -> float:
    began = thread_time()
    with suppress(Exception):
        read(data)
    return thread_time() - began


def _weigh(subject: Reader, read: Callable[[bytes], object], data: bytes, outcome: Outcome) -> None:
    tracemalloc.start()
    try:
        read(data)
    except Exception:  # noqa: BLE001  # It was judged before.
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    if peak > BYTES + BYTES_PER_BYTE * len(data):
        outcome.found("too much memory", data, f"{len(data)} bytes took {peak}:")


def main(arguments: Sequence[str]) -> None:
    """Be the process of one part."""
    name, seed, count, path = arguments
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES, MOST_BYTES))
    current = Current(Path(path), reader(name).largest)
    print(msgspec.json.encode(drive(name, seed, int(count), current.keep)).decode())


if __name__ == "__main__":
    main(sys.argv[1:])
