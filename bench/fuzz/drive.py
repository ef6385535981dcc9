"""Lets one reader read, and notes what it should not have done."""

from __future__ import annotations

import resource
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from time import thread_time
from traceback import extract_tb

from bench.fuzz.mutate import Mutator
from bench.fuzz.readers import Reader, reader

SECONDS_PER_BYTE = 2e-6
"""An input may take so much longer, of this thread's processor: a message of full size 9 s."""
BYTES = 8 * 2**20
BYTES_PER_BYTE = 160
"""An input may take so much memory: a byte of msgpack or JSON makes an object of 56 bytes, its place in a list, and an
error that quotes it."""
TRACED = 2_000
"""Of so many small inputs the memory of one is looked at: that makes it several times slower."""
SHOWN = 400
KEPT = 20


@dataclass(slots=True)
class Outcome:
    """What came of the inputs of one reader. `findings` are what it may not do, each with the input in hexadecimal;
    `peak_bytes` the most that this process has held, `slowest` in seconds."""

    reader: str
    inputs: int = 0
    refused: int = 0
    findings: dict[str, str] = field(default_factory=dict)
    slowest: float = 0.0
    peak_bytes: int = 0

    def found(self, what: str, data: bytes, detail: str = "") -> None:
        """Note one: the first of its kind, with its input."""
        if len(self.findings) < KEPT:
            shown = f"{data[:SHOWN].hex()}{'...' if len(data) > SHOWN else ''}"
            self.findings.setdefault(what, f"{detail} {shown}".lstrip())


def drive(name: str, seed: str, count: int) -> Outcome:
    """Give a reader its bombs, and then `count` inputs that `seed` makes."""
    subject = reader(name)
    outcome, read = Outcome(name), subject.make()
    for bomb in subject.form.bombs(subject.largest):
        _read(subject, read, bomb, outcome)
        _weigh(subject, read, bomb, outcome)
    mutator = Mutator(Random(seed), subject.examples(), subject.form)
    while outcome.inputs < count:
        data = mutator.next()
        _read(subject, read, data, outcome)
        if outcome.inputs % TRACED == 0:
            _weigh(subject, read, data, outcome)
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
    if spent > outcome.slowest:
        outcome.slowest = spent
    if spent > subject.seconds + SECONDS_PER_BYTE * len(data):
        outcome.found("too slow", data, f"{len(data)} bytes took {spent:.1f} s:")


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
