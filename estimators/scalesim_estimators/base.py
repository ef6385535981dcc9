"""What every estimator gives and takes: events in, an estimate of the next invocation out."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar, Protocol

from scalesim_client.events import Event


@dataclass(frozen=True, slots=True)
class Estimate:
    """When an agent's next invocation is expected.

    `due` is an absolute value of the stream's clock (in its units), so that a tick changes no stored value;
    `confidence` is in 0..1; `basis` says in a few words why, for people.
    """

    due: float
    confidence: float
    basis: str

    def distance(self, now: float) -> float:
        """Return the invocation distance at clock value `now`, in clock units, never negative."""
        return max(0.0, self.due - now)


class Estimator(Protocol):
    """One way to foresee invocations in one stream. Pure: no I/O, no clock of its own, deterministic."""

    name: ClassVar[str]

    def observe(self, event: Event, now: float) -> Collection[str]:
        """Take in one event at clock value `now`; return the agents whose estimate it may have changed."""
        ...

    def estimate(self, agent: str) -> Estimate | None:
        """Return the agent's present estimate, or None where this estimator foresees nothing."""
        ...
