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


class SingleDue(ByType):
    """Base: subclasses handle the event that brings a due."""

    name: ClassVar[str]
    confidence: ClassVar[float]
    basis: ClassVar[str]
    __slots__ = ("_dues",)

    def __init__(self) -> None:
        self._dues: dict[str, float] = {}
        self._handlers = {
            InvocationStarted: self._drop,
            AgentIdled: self._drop,
            AgentReleased: self._drop,
        }

    def estimate(self, agent: str, earliest: float = -math.inf) -> Estimate | None:
        """Return the agent's due, or None where there is none or it is before `earliest`."""
        due = self._dues.get(agent)
        if due is None or due < earliest:
            return None
        return Estimate(due, self.confidence, self.basis)

    def _set(self, agent: str, due: float) -> Collection[str]:
        self._dues[agent] = due
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
