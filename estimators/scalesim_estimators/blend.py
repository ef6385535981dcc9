"""One estimate from several estimators, as far as they are admitted."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from heapq import heapify, heappop, heappush
from typing import ClassVar

from scalesim_client.events import Event
from scalesim_estimators.base import Estimate, Estimator
from scalesim_estimators.declared import DeclaredEstimator
from scalesim_estimators.history import HistoryEstimator
from scalesim_estimators.nearest import nearest
from scalesim_estimators.quality import BLEND, Quality
from scalesim_estimators.single import WokenEstimator

_STALE = 64


class Blend:
    """Per agent the estimate with the smallest due among the admitted estimators; what is learned has a say
    where nothing is told (`nearest`).

    Of equal dues the declared one wins, then the first by the estimator's name. A declared "not before"
    raises every due to at least its value. On a clock of steps dues are whole numbers: what falls between two
    steps comes at the later one.

    `quality` judges the estimators and decides who is admitted. One that is not goes on observing, so that it
    can be judged. A wake-up is no forecast but an order, and never judged away.
    """

    name: ClassVar[str] = BLEND
    __slots__ = ("_declared", "_estimators", "_passing", "_soonest", "_whole", "history", "quality")

    def __init__(
        self, told: Collection[Estimator], history: HistoryEstimator, quality: Quality | None = None
    ) -> None:
        """Blend what is `told` with what `history` learns. Raise `ValueError` where two have the same name, or
        `quality` is that of other estimators."""
        first = sorted(told, key=lambda e: (e.name != DeclaredEstimator.name, e.name))
        self._estimators: tuple[Estimator, ...] = (*first, history)
        names = tuple(estimator.name for estimator in self._estimators)
        if len(set(names)) < len(names):
            raise ValueError("two estimators have the same name")
        self.history = history
        self.quality = quality or Quality(names, always=(WokenEstimator.name,))
        if self.quality.names != names:
            raise ValueError(f"this quality is that of {self.quality.names}, not of {names}")
        self._soonest: dict[str, float] = {}
        """Per agent the nearest due that any estimator has said."""
        self._passing: list[tuple[float, str]] = []
        self._whole = history.clock == "step"
        self._declared = next((e for e in first if isinstance(e, DeclaredEstimator)), None)

    @property
    def estimators(self) -> Sequence[Estimator]:
        """All estimators, admitted or not, in the order that decides between equal dues."""
        return self._estimators

    def observe(self, event: Event, now: float) -> Collection[str]:
        """Show the event to every estimator; return the agents that any of them names, each once."""
        changed: Collection[str] = ()
        for estimator in self._estimators:
            named = estimator.observe(event, now)
            if named:
                changed = dict.fromkeys((*changed, *named)) if changed else named
        return changed

    def ask(self, agent: str, earliest: float = -math.inf) -> list[Estimate | None]:
        """Return what each estimator says, admitted or not, in their order: its nearest estimate with
        `due >= earliest`, None where it has none."""
        bound = None if self._declared is None else self._declared.not_before(agent)
        if bound is not None and bound >= earliest:
            earliest = -math.inf
        elif self._whole and earliest > -math.inf:
            # What comes at a step falls after the step before it.
            earliest = math.nextafter(math.ceil(earliest) - 1, math.inf)
        found = [estimator.estimate(agent, earliest) for estimator in self._estimators]
        if bound is not None:
            found = [estimate and _raised(estimate, bound) for estimate in found]
        return [estimate and _whole(estimate) for estimate in found] if self._whole else found

    def estimate(self, agent: str, earliest: float = -math.inf) -> Estimate | None:
        """Return the estimate that holds, of those with `due >= earliest`, or None where there is none."""
        estimates = self.ask(agent, earliest)
        return self._choose(estimates, _dues(estimates))

    def renew(self, agent: str, now: float, earliest: float = -math.inf) -> Estimate | None:
        """Return the estimate that holds from clock value `now` on, and note for the score what each estimator
        says: for the agents that `observe`, `lapsed` or the score has named.

        What is before `earliest` gives way to what comes next; where nothing does, it is returned as it is, and
        counts as nothing in the score.
        """
        estimates = self.ask(agent, earliest)
        dues = _dues(estimates)
        self.quality.estimated(agent, dues, estimates, now)
        self._watch(agent, min(dues))
        chosen = self._choose(estimates, dues)
        return self.estimate(agent) if chosen is None else chosen

    def lapsed(self, earliest: float) -> list[str]:
        """Return the agents of which an estimate that was noted lies before `earliest`, each once."""
        agents = []
        while self._passing and self._passing[0][0] < earliest:
            due, agent = heappop(self._passing)
            if self._soonest.get(agent) == due:
                del self._soonest[agent]
                agents.append(agent)
        return agents

    def forget(self, agent: str) -> None:
        """Drop what is kept of an agent of which nothing is told any more."""
        self.history.forget(agent)
        self.quality.forget(agent)
        self._soonest.pop(agent, None)

    def _choose(self, estimates: Sequence[Estimate | None], dues: Sequence[float]) -> Estimate | None:
        whose = nearest(dues, self.quality.admitted).whose
        return None if whose < 0 else estimates[whose]

    def _watch(self, agent: str, due: float) -> None:
        if self._soonest.get(agent, math.inf) == due:
            return
        if due == math.inf:
            del self._soonest[agent]
            return
        self._soonest[agent] = due
        heappush(self._passing, (due, agent))
        if len(self._passing) > 2 * len(self._soonest) + _STALE:
            self._passing = [(due, agent) for agent, due in self._soonest.items()]
            heapify(self._passing)


def _dues(estimates: Sequence[Estimate | None]) -> tuple[float, ...]:
    return tuple([math.inf if estimate is None else estimate.due for estimate in estimates])


def _raised(estimate: Estimate, bound: float) -> Estimate:
    if estimate.due >= bound:
        return estimate
    return Estimate(bound, estimate.confidence, f"{estimate.basis} (not before)")


def _whole(estimate: Estimate) -> Estimate:
    if estimate.due % 1 > 0:
        return replace(estimate, due=float(math.ceil(estimate.due)))
    return estimate
