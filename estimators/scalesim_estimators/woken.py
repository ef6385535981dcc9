"""Agents that something outside the plan makes call now."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import ClassVar

from scalesim_client.events import (
    AgentEvent,
    AgentIdled,
    AgentReleased,
    AgentWoken,
    Event,
    InvocationStarted,
)
from scalesim_estimators.base import Estimate, Handlers


class WokenEstimator:
    """Due at the clock value of `agent.woken`, until the invocation that it announces."""

    name: ClassVar[str] = "woken"
    __slots__ = ("_handlers", "_woken")

    def __init__(self) -> None:
        self._woken: dict[str, float] = {}
        self._handlers: Handlers = {
            AgentWoken: self._wake,
            InvocationStarted: self._drop,
            AgentIdled: self._drop,
            AgentReleased: self._drop,
        }

    def observe(self, event: Event, now: float) -> Collection[str]:
        """Take in one event at clock value `now`; return the agent concerned, or nothing."""
        handler = self._handlers.get(type(event))
        return () if handler is None else handler(event, now)

    def estimate(self, agent: str, earliest: float = -math.inf) -> Estimate | None:
        """Return when the agent was woken, or None where it is not woken or was before `earliest`."""
        due = self._woken.get(agent)
        if due is None or due < earliest:
            return None
        return Estimate(due, 1.0, "woken")

    def _wake(self, event: AgentWoken, now: float) -> Collection[str]:
        self._woken[event.agent] = now
        return (event.agent,)

    def _drop(self, event: AgentEvent, now: float) -> Collection[str]:
        return () if self._woken.pop(event.agent, None) is None else (event.agent,)
