"""What is left alone for a while because it failed. Pure: monotonic time in seconds is handed in."""

from __future__ import annotations

from dataclasses import dataclass

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.plan import Action, Step

LONGEST_SECONDS = 30.0
# Beyond that, what isn't held any more is forgotten: agents come and go.
MOST_KNOWN = 20_000


@dataclass(slots=True)
class _Failure:
    count: int
    until: float
    why: str


class Backoff:
    """One engine's. What is put off is an action on an item: a LoRA that can't be loaded now can still be unstaged."""

    def __init__(self) -> None:
        self._failures: dict[tuple[Action, MemoryKind, str], _Failure] = {}

    def put_off(self, step: Step, now: float, why: str = "") -> float:
        """Keep off the step for a while that grows with every time; return for how many seconds."""
        if len(self._failures) >= MOST_KNOWN:
            self._failures = {about: one for about, one in self._failures.items() if one.until > now}
        known = self._failures.get(_subject(step))
        count = 1 if known is None else known.count + 1
        wait: float = min(LONGEST_SECONDS, 0.5 * 2 ** min(count, 6))
        self._failures[_subject(step)] = _Failure(count, now + wait, why)
        return wait

    def holds(self, step: Step, now: float) -> bool:
        """Whether the step is to be left alone now."""
        failure = self._failures.get(_subject(step))
        return failure is not None and failure.until > now

    def why(self, step: Step) -> str | None:
        """Return why the step was put off last, None where it wasn't since it has worked."""
        failure = self._failures.get(_subject(step))
        return None if failure is None else failure.why

    def forget(self, step: Step) -> None:
        """The step has worked."""
        self._failures.pop(_subject(step), None)


def _subject(step: Step) -> tuple[Action, MemoryKind, str]:
    return step.action, step.kind, step.key
