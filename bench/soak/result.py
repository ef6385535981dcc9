"""What a soak came to, as a file, and what the machine was like meanwhile."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from bench.soak.figures import Check, Figures
from bench.soak.speak import Said


class Conditions(msgspec.Struct, frozen=True):
    """By which command, where and when it was played. `cores_used` has of each process how many cores it took on
    average; `waited_for_a_core` is the share of the time in which the daemon's loop could have run and had none: what
    is measured as time says as much less of the daemon. `load_average` is that of the last minute, before and after."""

    command: str
    seed: int
    cores: int
    python: str
    played: str
    load_average: tuple[float, float]
    cores_used: dict[str, float]
    waited_for_a_core: float


class Result(msgspec.Struct, frozen=True):
    """All that is kept of a run: `course` has the medians of each half minute."""

    conditions: Conditions
    figures: Figures
    checks: list[Check]
    said: Said
    drift: list[str]
    course: list[dict[str, float]]


def conditions(seed: int, load_before: float, cores_used: dict[str, float], waited: float) -> Conditions:
    """Return those of this machine, now."""
    return Conditions(
        " ".join(("python -m bench.soak", *sys.argv[1:])),
        seed,
        os.cpu_count() or 1,
        sys.version.split()[0],
        datetime.now(UTC).date().isoformat(),
        (round(load_before, 1), round(os.getloadavg()[0], 1)),
        cores_used,
        waited,
    )


def write(path: Path, result: Result) -> None:
    """Write it as JSON. Raises `OSError`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def read(path: Path) -> Result:
    """Read it. Raises `OSError`, and `msgspec.DecodeError` where it is none."""
    return msgspec.json.decode(path.read_bytes(), type=Result)
