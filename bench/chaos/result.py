"""What came of all schedules, as a file."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from bench.chaos.run import Outcome

FOUND = ("failed_requests", "divergences", "budget_violations", "leaks")


class Conditions(msgspec.Struct, frozen=True):
    """By which command, where and when it was played; `skipped` faults, and why."""

    command: str
    cores: int
    python: str
    played: str
    seconds: float
    skipped: dict[str, str]


class Result(msgspec.Struct, frozen=True):
    """All outcomes, by engine and seed, and the conditions by engine."""

    conditions: dict[str, Conditions]
    schedules: list[Outcome]


def conditions(command: str, seconds: float, skipped: Mapping[str, str]) -> Conditions:
    """Return those of this machine, now."""
    return Conditions(
        command,
        os.cpu_count() or 1,
        sys.version.split()[0],
        datetime.now(UTC).date().isoformat(),
        round(seconds, 1),
        {str(kind): why for kind, why in skipped.items()},
    )


def joined(before: Result, after: Result) -> Result:
    """Return both: of an engine that was played again the latter."""
    kept = [outcome for outcome in before.schedules if outcome.engine not in after.conditions]
    return Result(
        {**before.conditions, **after.conditions},
        sorted((*kept, *after.schedules), key=lambda outcome: (outcome.engine, outcome.seed)),
    )


def figures(result: Result) -> dict[str, Any]:
    """Return the sums that the command ends with."""
    played = result.schedules
    return {
        "schedules": len(played),
        "engines": dict(Counter(outcome.engine for outcome in played)),
        **{what: sum(len(getattr(outcome, what)) for outcome in played) for what in FOUND},
    }


def write(path: Path, result: Result) -> None:
    """Leave the outcomes in a file, beside those of engines that were played before."""
    result = joined(read(path), result) if path.exists() else result
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def read(path: Path) -> Result:
    """Return the outcomes from a file. Raises `OSError` and `msgspec.ValidationError`."""
    return msgspec.json.decode(path.read_bytes(), type=Result)
