"""Estimators that keep one due per agent, which an invocation uses up."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import ClassVar

from scalesim_client.events import (
    ActivityStarted,
    AgentEvent,
    AgentIdled,
    AgentReleased,
    AgentWoken,
    InvocationStarted,
)
from scalesim_estimators.base import ByType, Estimate

_SHARED = 1024


class SingleDue(ByType):
    """Base: subclasses handle the event that brings a due."""

    name: ClassVar[str]
    confidence: ClassVar[float]
    basis: ClassVar[str]
    __slots__ = ("_dues", "_shared")

    def __init__(self) -> None:
        self._dues: dict[str, Estimate] = {}
        self._shared: dict[float, Estimate] = {}
        """Many agents are due alike: then it is the same object."""
        self._handlers = {
            InvocationStarted: self._drop,
            AgentIdled: self._drop,
            AgentReleased: self._drop,
        }

    def estimate(self, agent: str, earliest: float = -math.inf) -> Estimate | None:
        """Return the agent's due, or None where there is none or it is before `earliest`."""
        estimate = self._dues.get(agent)
        return None if estimate is None or estimate.due < earliest else estimate

    def _set(self, agent: str, due: float) -> Collection[str]:
        estimate = self._shared.get(due)
        if estimate is None:
            if len(self._shared) == _SHARED:
                self._shared.clear()
            estimate = self._shared[due] = Estimate(due, self.confidence, self.basis)
        self._dues[agent] = estimate
        return (agent,)

    def _drop(self, event: AgentEvent, now: float) -> Collection[str]:
        return () if self._dues.pop(event.agent, None) is None else (event.agent,)


class ActivityEstimator(SingleDue):
    """Independent agents: due when the current activity ends, at `until`, or `for` clock units after it began."""

    name = "activity"
    confidence = 0.9
    basis = "activity ends"
    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self._handlers[ActivityStarted] = self._start

    def _start(self, event: ActivityStarted, now: float) -> Collection[str]:
        return self._set(event.agent, now + (event.for_ or 0.0) if event.until is None else event.until)


class WokenEstimator(SingleDue):
    """Agents that something outside the plan makes call now: due at the clock value of `agent.woken`."""

    name = "woken"
    confidence = 1.0
    basis = "woken"
    __slots__ = ()

    def __init__(self) -> None:
        super().__init__()
        self._handlers[AgentWoken] = lambda event, now: self._set(event.agent, now)
