"""A part's rounds, from a process of its own: what one part leaves behind costs no other."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection

from bench.daemon.figures import PARTS, Round


def rounds_apart(part: str, rounds: int, seed: int) -> Iterator[Round]:
    """Yield what each round gives; raises `RuntimeError` where a process fails, which says itself why."""
    spawning = multiprocessing.get_context("spawn")
    receiving, sending = spawning.Pipe(duplex=False)
    process = spawning.Process(target=_measure, args=(part, rounds, seed, sending))
    process.start()
    sending.close()
    with suppress(EOFError):
        while True:
            yield receiving.recv()
    process.join()
    if process.exitcode:
        raise RuntimeError(f"{part} could not be measured")


def _measure(part: str, rounds: int, seed: int, sending: Connection) -> None:
    for one in PARTS[part](rounds, seed):
        sending.send(one)
