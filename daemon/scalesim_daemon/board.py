"""The due board: every agent's next invocation as its streams estimate it. Pure; a tick changes nothing."""

from __future__ import annotations

import math
from collections.abc import KeysView, Sequence
from typing import NamedTuple

from scalesim_client.events import ClockKind
from scalesim_daemon.clock import StreamClock
from scalesim_estimators import Estimate

OVERDUE = "overdue"


def overdue_after(clock: StreamClock) -> float:
    """Return how many clock units after its due an invocation is overdue: one step."""
    return clock.step


class Due(NamedTuple):
    """An estimate with the clock that it is in."""

    estimate: Estimate
    clock: StreamClock

    @property
    def overdue(self) -> bool:
        """Whether the invocation should have come more than a step ago: then the agent counts as far."""
        return self.estimate.due < self.clock.now - overdue_after(self.clock)

    @property
    def distance(self) -> float:
        """The invocation distance in the clock's units; infinity where it is overdue."""
        return math.inf if self.overdue else self.estimate.distance(self.clock.now)

    @property
    def seconds(self) -> float:
        """The distance as wall seconds, by the clock's measured pace: comparable between clocks."""
        return self.distance * self.clock.pace

    def left(self, wall: float) -> float:
        """Return in how many wall seconds the invocation is to be expected, by the clock's pace: unlike the distance,
        this falls between two ticks too. It serves lead time, and orders nothing."""
        return max(0.0, self.seconds - self.clock.passed(wall))

    @property
    def basis(self) -> str:
        """Why, for people."""
        return f"{OVERDUE}: {self.estimate.basis}" if self.overdue else self.estimate.basis


class DueRecord(NamedTuple):
    """What Redis shows of one agent: `due` is a value of its stream's clock, `items` name its memory."""

    due: float
    clock: ClockKind
    confidence: float
    basis: str
    items: Sequence[str] = ()


class DueBoard:
    """Keeps one due per agent and stream; an agent's own is the nearest of them."""

    def __init__(self) -> None:
        self._dues: dict[str, tuple[tuple[str, Due], ...]] = {}
        """Per agent, which source foresees what. Nearly all agents have one: then this is small."""

    def put(self, agent: str, source: str, due: Due | None) -> bool:
        """Set what `source` estimates for the agent, None for nothing; return whether it was anything else before."""
        told = self._dues.get(agent, ())
        now = () if due is None else ((source, due),)
        for place, (teller, before) in enumerate(told):
            if teller == source:
                if before == due:
                    return False
                now = (*told[:place], *now, *told[place + 1 :]) if len(told) > 1 else now
                break
        else:
            if due is None:
                return False
            now = (*told, *now)
        if now:
            self._dues[agent] = now
        else:
            del self._dues[agent]
        return True

    def get(self, agent: str) -> Due | None:
        """Return the agent's nearest due, None where no invocation is foreseen."""
        nearest = self.nearest(agent)
        return None if nearest is None else nearest[1]

    def nearest(self, agent: str) -> tuple[str, Due] | None:
        """Return the agent's nearest due and the source whose it is, None where no invocation is foreseen."""
        dues = self._dues.get(agent)
        if dues is None:
            return None
        return dues[0] if len(dues) == 1 else min(dues, key=_seconds)

    def told(self, agent: str) -> tuple[tuple[str, Due], ...]:
        """Return the dues that sources have for the agent, each with its source."""
        return self._dues.get(agent, ())

    def told_by(self, source: str, agent: str) -> Due | None:
        """Return the due that one source has for the agent, None where it foresees no invocation."""
        return next((due for teller, due in self._dues.get(agent, ()) if teller == source), None)

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


def _seconds(told: tuple[str, Due]) -> float:
    return told[1].seconds
