"""What the examples share: a publisher for the play, and flags that say where daemon and engine are."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from scalesim_client import ClockKind, Publisher

Play = Callable[[Publisher, str, int, Callable[[int], None]], None]
"""Plays so many steps beside the engine at a base URL, and calls back after each."""


def run(play: Play, simulation: str, clock: ClockKind = "step") -> None:
    """Run a play. With `--pause` it says each step, once it has been told to the daemon, and waits for a line."""
    flags = argparse.ArgumentParser()
    flags.add_argument("--feed", default="tcp://127.0.0.1:5600", help="the daemon's ZeroMQ door")
    flags.add_argument("--engine", default="http://127.0.0.1:8000/v1", help="the OpenAI-compatible engine")
    flags.add_argument("--steps", type=int, default=6)
    flags.add_argument("--pause", action="store_true")
    given = flags.parse_args()
    with Publisher(simulation, clock, address=given.feed) as publisher:

        def after_step(step: int) -> None:
            if given.pause:
                publisher.flush(10)
                print(f"step {step}", flush=True)
                input()

        play(publisher, given.engine, given.steps, after_step)
