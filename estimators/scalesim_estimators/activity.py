"""Independent agents: the next invocation comes when the current action ends."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import ClassVar

from scalesim_client.events import (
    ActivityStarted,
    AgentEvent,
    AgentIdled,
    AgentReleased,
    Event,
    InvocationStarted,
)
from scalesim_estimators.base import Estimate, Handlers


class ActivityEstimator:
    """Due when the current activity ends: at `until`, or `for` clock units after it began.

    An invocation uses the estimate up; the activity that follows it brings the next one.
    """

    name: ClassVar[str] = "activity"
    __slots__ = ("_ends", "_handlers")

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}
        self._handlers: Handlers = {
            ActivityStarted: self._start,
            InvocationStarted: self._drop,
            AgentIdled: self._drop,
            AgentReleased: self._drop,
        }

    def observe(self, event: Event, now: float) -> Collection[str]:
        """Take in one event at clock value `now`; return the agent concerned, or nothing."""
        handler = self._handlers.get(type(event))
        return () if handler is None else handler(event, now)

    def estimate(self, agent: str, earliest: float = -math.inf) -> Estimate | None:
        """Return when the agent's activity ends, or None where that is unknown or before `earliest`."""
        due = self._ends.get(agent)
        if due is None or due < earliest:
            return None
        return Estimate(due, 0.9, "activity ends")

    def _start(self, event: ActivityStarted, now: float) -> Collection[str]:
        until = event.until
        self._ends[event.agent] = now + (event.for_ or 0.0) if until is None else until
        return (event.agent,)

    def _drop(self, event: AgentEvent, now: float) -> Collection[str]:
        return () if self._ends.pop(event.agent, None) is None else (event.agent,)
