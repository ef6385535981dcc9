"""What came of all schedules, as a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from bench.fleet.run import Outcome
from bench.fleet.schedule import LEASE_SECONDS

FOUND = ("overlapping_acts", "failed_requests", "stale_dues", "silent_engines", "daemons_ended")


class Conditions(msgspec.Struct, frozen=True):
    """By which command, where and when it was played; `skipped` faults, and why."""

    command: str
    cores: int
    python: str
    played: str
    seconds: float
    lease_seconds: float
    skipped: dict[str, str]


class Result(msgspec.Struct, frozen=True):
    """All outcomes by seed, and their conditions."""

    conditions: Conditions
    schedules: list[Outcome]


def conditions(command: str, seconds: float, skipped: Mapping[str, str]) -> Conditions:
    """Return those of this machine, now."""
    return Conditions(
        command,
        os.cpu_count() or 1,
        sys.version.split()[0],
        datetime.now(UTC).date().isoformat(),
        round(seconds, 1),
        LEASE_SECONDS,
        {str(kind): why for kind, why in skipped.items()},
    )


def figures(outcomes: list[Outcome]) -> dict[str, Any]:
    """Return what the command ends with; times are null where nothing was taken over."""
    taken = [seconds for outcome in outcomes for seconds in outcome.takeovers]
    longest = max(taken, default=None)
    return {
        "schedules": len(outcomes),
        "acts": sum(outcome.acts for outcome in outcomes),
        "calls": sum(outcome.calls for outcome in outcomes),
        "takeovers": len(taken),
        "takeover_p50_s": round(median(taken), 2) if taken else None,
        "takeover_max_s": longest,
        "takeover_over_lease": None if longest is None else round(longest / LEASE_SECONDS, 2),
        **{what: sum(len(getattr(outcome, what)) for outcome in outcomes) for what in FOUND},
    }


def write(path: Path, result: Result) -> None:
    """Leave the outcomes in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def read(path: Path) -> Result:
    """Return the outcomes from a file. Raises `OSError` and `msgspec.ValidationError`."""
    return msgspec.json.decode(path.read_bytes(), type=Result)
