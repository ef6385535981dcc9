"""Estimators that keep one due per agent, which an invocation uses up."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import ClassVar

from scalesim_client.events import (
    ActivityStarted,
    AgentEvent,
    AgentIdled,
    AgentReleased,
    AgentWoken,
    Event,
    InvocationStarted,
)
from scalesim_estimators.base import ByType, Estimate, Handlers, Listener

_SHARED = 1024


class _Shared(dict[float, Estimate]):
    """Estimates by their dues: many agents are due alike, and then it is the same object."""

    __slots__ = ("_basis", "_confidence", "_whole")

    def __init__(self, estimator: SingleDue) -> None:
        super().__init__()
        self._confidence, self._basis, self._whole = estimator.confidence, estimator.basis, estimator.whole

    def __missing__(self, due: float) -> Estimate:
        if len(self) == _SHARED:
            self.clear()
        shown = float(math.ceil(due)) if self._whole and due % 1 > 0 else due
        estimate = self[due] = Estimate(shown, self._confidence, self._basis)
        return estimate


class SingleDue(ByType):
    """Base: subclasses handle the event that brings a due. Where the clock shows `whole` numbers only, a due falls to
    the next of them."""

    name: ClassVar[str]
    confidence: ClassVar[float]
    basis: ClassVar[str]
    __slots__ = ("_dues", "_shared", "whole")

    def __init__(self, *, whole: bool = False) -> None:
        self.whole = whole
        self._dues: dict[str, Estimate] = {}
        self._shared = _Shared(self)

    def estimate(self, agent: str, earliest: float = -math.inf) -> Estimate | None:
        """Return the agent's due, or None where there is none or it is before `earliest`."""
        estimate = self._dues.get(agent)
        return None if estimate is None or estimate.due < earliest else estimate

    def estimates(self, agents: Sequence[str], earliest: float) -> list[Estimate | None]:
        """Return what `estimate` does, of each agent."""
        known = map(self._dues.get, agents)
        return [None if one is None or one.due < earliest else one for one in known]

    def _set(self, agents: Sequence[str], dues: Sequence[float]) -> Collection[str]:
        self._dues.update(zip(agents, map(self._shared.__getitem__, dues), strict=True))
        return agents

    def _drop(self, event: AgentEvent, now: float) -> Collection[str]:
        return () if self._dues.pop(event.agent, None) is None else (event.agent,)

    handlers: ClassVar[Handlers] = {
        InvocationStarted: _drop,
        AgentIdled: _drop,
        AgentReleased: _drop,
    }


class ActivityEstimator(SingleDue):
    """Independent agents: due when the current activity ends, at `until`, or `for` clock units after it began."""

    name = "activity"
    confidence = 0.9
    basis = "activity ends"
    __slots__ = ()

    def listener(self, kind: type[Event]) -> Listener | None:
        """Return what takes in events of a type: that activities start is said of many agents at once."""
        return self._start if kind.type == ActivityStarted.type else super().listener(kind)

    def _start(self, events: Sequence[ActivityStarted], now: float) -> Collection[str]:
        dues = [now + (event.for_ or 0.0) if event.until is None else event.until for event in events]
        return self._set([event.agent for event in events], dues)


class WokenEstimator(SingleDue):
    """Agents that something outside the plan makes call now: due at the clock value of `agent.woken`."""

    name = "woken"
    confidence = 1.0
    basis = "woken"
    __slots__ = ()

    def _wake(self, event: AgentWoken, now: float) -> Collection[str]:
        return self._set((event.agent,), (now,))

    handlers: ClassVar[Handlers] = {**SingleDue.handlers, AgentWoken: _wake}
