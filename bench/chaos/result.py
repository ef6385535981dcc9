"""What came of all schedules, as a file that is written as they come."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from bench.chaos.run import Outcome

FOUND = ("failed_requests", "divergences", "budget_violations", "leaks")
CHANGED = "+"
"""Behind a commit: the files were others than its own."""


class Conditions(msgspec.Struct, frozen=True):
    """By which command, at which commit, where and when it was played, so many `at_once`; `skipped` faults, and why."""

    command: str
    commit: str
    cores: int
    at_once: int
    python: str
    played: str
    seconds: float
    skipped: dict[str, str]


class Result(msgspec.Struct, frozen=True):
    """All outcomes, by engine and seed, and the conditions by engine."""

    conditions: dict[str, Conditions]
    schedules: list[Outcome]


def conditions(command: str, at_once: int, skipped: Mapping[str, str]) -> Conditions:
    """Return those of this machine, now."""
    return Conditions(
        command,
        _commit(),
        os.cpu_count() or 1,
        at_once,
        sys.version.split()[0],
        datetime.now(UTC).date().isoformat(),
        0.0,
        {str(kind): why for kind, why in skipped.items()},
    )


def _commit() -> str:
    """Return the commit that is checked out, marked where what runs differs from it; the mark alone where nothing is
    checked out."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        return commit + CHANGED if _git("status", "--porcelain", "--", ".", ":(exclude)docs") else commit
    except (OSError, subprocess.CalledProcessError):
        return CHANGED


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout.strip()


class Record:
    """A file of outcomes. Those of other engines stay in it."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._result = Result({}, [])
        if path is not None and path.exists():
            self._result = read(path)

    def begin(self, engine: str, now: Conditions, *, resume: bool) -> frozenset[int]:
        """Let the schedules of an engine follow, and return the seeds of those that were played. None were unless it is
        to `resume` what the same command began at the same commit."""
        before = self._result.conditions.get(engine)
        if resume and before is not None and _same(before, now):
            return frozenset(outcome.seed for outcome in self.of(engine))
        kept = [outcome for outcome in self._result.schedules if outcome.engine != engine]
        self._result = Result({**self._result.conditions, engine: now}, kept)
        return frozenset()

    def add(self, outcome: Outcome, seconds: float) -> None:
        """Keep an outcome, which came so long after the one before it."""
        held = self._result.conditions[outcome.engine]
        longer = msgspec.structs.replace(held, seconds=round(held.seconds + seconds, 1))
        self._result = Result(
            {**self._result.conditions, outcome.engine: longer},
            sorted((*self._result.schedules, outcome), key=lambda one: (one.engine, one.seed)),
        )
        if self._path is not None:
            _write(self._path, self._result)

    def of(self, engine: str) -> list[Outcome]:
        """Return what came of an engine's schedules."""
        return [outcome for outcome in self._result.schedules if outcome.engine == engine]


def _same(before: Conditions, now: Conditions) -> bool:
    return not now.commit.endswith(CHANGED) and before == msgspec.structs.replace(
        now, seconds=before.seconds, played=before.played
    )


def figures(played: list[Outcome]) -> dict[str, Any]:
    """Return the sums that the command ends with."""
    return {
        "schedules": len(played),
        "engines": dict(Counter(outcome.engine for outcome in played)),
        **{what: sum(len(getattr(outcome, what)) for outcome in played) for what in FOUND},
    }


def _write(path: Path, result: Result) -> None:
    """Whoever is cut off meanwhile leaves what was there before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".fresh")
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    fresh.replace(path)


def read(path: Path) -> Result:
    """Return the outcomes from a file. Raises `OSError` and `msgspec.ValidationError`."""
    return msgspec.json.decode(path.read_bytes(), type=Result)
