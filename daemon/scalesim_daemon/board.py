"""The due board: every agent's next invocation as its streams estimate it. Pure; a tick changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, KeysView
from dataclasses import dataclass, replace

from scalesim_daemon.clock import StreamClock
from scalesim_estimators import Estimate

OVERDUE_STEPS = 1.0
OVERDUE = "overdue"


@dataclass(frozen=True, slots=True)
class Due:
    """An estimate with the clock that it is in. `later(earliest)` asks for the estimate that comes at or
    after a clock value, for when this one has passed without an invocation."""

    estimate: Estimate
    clock: StreamClock
    later: Callable[[float], Estimate | None]

    @classmethod
    def of(cls, estimate: Estimate, clock: StreamClock, later: Callable[[float], Estimate | None]) -> Due:
        """Return the due on its clock: one of steps shows whole numbers, and what falls between two comes at the
        later one."""
        if clock.kind == "step" and math.isfinite(estimate.due):
            estimate = replace(estimate, due=float(math.ceil(estimate.due)))
        return cls(estimate, clock, later)

    @property
    def overdue(self) -> bool:
        """Whether the invocation should have come more than a step ago: then the agent counts as far."""
        return self.estimate.due < self._earliest

    @property
    def _earliest(self) -> float:
        return self.clock.now - OVERDUE_STEPS * self.clock.step

    def current(self) -> Due:
        """Return this due, or where it is overdue the one that comes after it, if any."""
        if not self.overdue:
            return self
        later = self.later(self._earliest)
        return self if later is None else Due.of(later, self.clock, self.later)

    @property
    def distance(self) -> float:
        """The invocation distance in the clock's units; infinity where it is overdue."""
        return math.inf if self.overdue else self.estimate.distance(self.clock.now)

    @property
    def seconds(self) -> float:
        """The distance as wall seconds, by the clock's measured pace: comparable between clocks."""
        return self.distance * self.clock.pace

    @property
    def basis(self) -> str:
        """Why, for people."""
        return f"{OVERDUE}: {self.estimate.basis}" if self.overdue else self.estimate.basis


class DueBoard:
    """Keeps one due per agent and stream; an agent's own is the nearest of them."""

    def __init__(self) -> None:
        self._dues: dict[str, dict[str, Due]] = {}

    def put(self, agent: str, source: str, due: Due | None) -> None:
        """Set what `source` estimates for the agent, None for nothing."""
        if due is not None:
            self._dues.setdefault(agent, {})[source] = due
            return
        dues = self._dues.get(agent)
        if dues is not None:
            dues.pop(source, None)
            if not dues:
                del self._dues[agent]

    def get(self, agent: str) -> Due | None:
        """Return the agent's nearest due, None where no invocation is foreseen."""
        nearest = self.nearest(agent)
        return None if nearest is None else nearest[1]

    def nearest(self, agent: str) -> tuple[str, Due] | None:
        """Return the agent's nearest due and the source whose it is, None where no invocation is foreseen."""
        dues = self._dues.get(agent)
        if not dues:
            return None
        current = ((source, due.current()) for source, due in dues.items())
        return min(current, key=lambda pair: pair[1].seconds)

    def streams(self, agent: str) -> int:
        """Return how many sources have a due for the agent."""
        return len(self._dues.get(agent, ()))

    def seconds(self, agent: str) -> float:
        """Return the agent's distance in wall seconds, infinity where no invocation is foreseen."""
        due = self.get(agent)
        return math.inf if due is None else due.seconds

    def agents(self) -> KeysView[str]:
        """Return the agents that have a due."""
        return self._dues.keys()

    def __len__(self) -> int:
        """Return how many agents have a due."""
        return len(self._dues)
