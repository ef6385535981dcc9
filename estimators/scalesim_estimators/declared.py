"""Agents whose next invocation the simulation declares itself."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import ClassVar

from scalesim_client.events import (
    AgentEvent,
    AgentIdled,
    AgentReleased,
    AgentWoken,
    InvocationStarted,
    PlanDeclared,
)
from scalesim_estimators.base import ByType, Estimate, Handlers


class DeclaredEstimator(ByType):
    """Due as `plan.declared` says. A plan replaces the earlier one.

    With `at`, all its agents are due at that clock value. In a plain order, the agent at index i (from 0) is
    due i clock units after the declaration: the first one now; an agent may stand in the order several times.
    With probabilities p per clock unit, an agent is due 1/p clock units after the declaration (the mean of
    the geometric distribution), and never for p = 0.

    An invocation uses up the agent's nearest declared due, and ends the bound `not_before` for it, as does a
    wake-up: what happened contradicts the bound or has fulfilled it.
    """

    name: ClassVar[str] = "declared"
    __slots__ = ("_bounds", "_plan")

    def __init__(self) -> None:
        self._plan: dict[str, list[Estimate]] = {}
        """Per agent, what the plan holds for it, the nearest last."""
        self._bounds: dict[str, float] = {}

    def estimate(self, agent: str, earliest: float = -math.inf) -> Estimate | None:
        """Return the agent's nearest declared due that is not before `earliest`, or None."""
        planned = self._plan.get(agent)
        if planned is None:
            return None
        return next((estimate for estimate in reversed(planned) if estimate.due >= earliest), None)

    def not_before(self, agent: str) -> float | None:
        """Return the clock value before which the agent does not call, or None where none is declared."""
        return self._bounds.get(agent)

    def _declare(self, event: PlanDeclared, now: float) -> Collection[str]:
        touched = dict.fromkeys([*self._plan, *self._bounds, *event.agents])
        self._plan = {}
        for agent, estimate in _estimates(event, now):
            self._plan.setdefault(agent, []).append(estimate)
        for planned in self._plan.values():
            planned.sort(key=lambda estimate: -estimate.due)
        self._bounds = {} if event.not_before is None else dict.fromkeys(event.agents, event.not_before)
        return touched

    def _invoke(self, event: InvocationStarted, now: float) -> Collection[str]:
        bounded = self._bounds.pop(event.agent, None) is not None
        planned = self._plan.get(event.agent)
        if planned is None:
            return (event.agent,) if bounded else ()
        planned.pop()
        if not planned:
            del self._plan[event.agent]
        return (event.agent,)

    def _unbind(self, event: AgentWoken, now: float) -> Collection[str]:
        return () if self._bounds.pop(event.agent, None) is None else (event.agent,)

    def _drop(self, event: AgentEvent, now: float) -> Collection[str]:
        bounded = self._bounds.pop(event.agent, None) is not None
        planned = self._plan.pop(event.agent, None) is not None
        return (event.agent,) if bounded or planned else ()

    handlers: ClassVar[Handlers] = {
        PlanDeclared: _declare,
        InvocationStarted: _invoke,
        AgentWoken: _unbind,
        AgentIdled: _drop,
        AgentReleased: _drop,
    }


def _estimates(event: PlanDeclared, now: float) -> Iterator[tuple[str, Estimate]]:
    if event.probabilities is not None:
        for agent, p in zip(event.agents, event.probabilities, strict=True):
            if p > 0 and math.isfinite(1 / p):
                yield agent, Estimate(now + 1 / p, p, "declared probability")
    elif event.at is not None:
        at = Estimate(event.at, 1.0, "declared step")
        for agent in dict.fromkeys(event.agents):
            yield agent, at
    else:
        for index, agent in enumerate(event.agents):
            yield agent, Estimate(now + index, 1.0, "declared order")
