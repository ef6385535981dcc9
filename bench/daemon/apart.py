"""A part's rounds, from a process of its own: what one part leaves behind costs no other."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection

from bench.daemon.figures import Part, Round


def rounds_apart(part: Part, rounds: int, seed: int) -> Iterator[Round]:
    """Yield what each round gives; raises `RuntimeError` where the process fails, which says itself why."""
    spawning = multiprocessing.get_context("spawn")
    receiving, sending = spawning.Pipe(duplex=False)
    process = spawning.Process(target=_measure, args=(part, rounds, seed, sending))
    process.start()
    sending.close()
    try:
        with receiving, suppress(EOFError):
            while True:
                yield receiving.recv()
        process.join()
    finally:
        # Where the reader stops early.
        process.terminate()
        process.join()
    if process.exitcode:
        raise RuntimeError("not all could be measured: see above")


def _measure(part: Part, rounds: int, seed: int, sending: Connection) -> None:
    for one in part(rounds, seed):
        sending.send(one)
