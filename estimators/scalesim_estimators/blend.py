"""The minimum over several estimators, as far as they are admitted."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from typing import ClassVar

from scalesim_client.events import Event
from scalesim_estimators.base import Estimate, Estimator
from scalesim_estimators.declared import DeclaredEstimator


class Blend:
    """Per agent the estimate with the smallest due among the admitted estimators.

    Of equal dues the declared one wins, then the first by the estimator's name. A declared "not before"
    raises every due to at least its value. An estimator that is not admitted goes on observing, so that it
    can be judged.
    """

    name: ClassVar[str] = "blend"
    __slots__ = ("_admitted", "_declared", "_estimators", "_voices")

    def __init__(self, estimators: Iterable[Estimator]) -> None:
        """Admit all `estimators`; raise `ValueError` where two have the same name."""
        self._estimators = sorted(estimators, key=lambda e: (e.name != DeclaredEstimator.name, e.name))
        self._admitted = {estimator.name for estimator in self._estimators}
        if len(self._admitted) < len(self._estimators):
            raise ValueError("two estimators have the same name")
        self._voices = list(self._estimators)
        self._declared = next((e for e in self._estimators if isinstance(e, DeclaredEstimator)), None)

    @property
    def estimators(self) -> Collection[Estimator]:
        """All estimators, admitted or not, in the order that decides between equal dues."""
        return tuple(self._estimators)

    @property
    def admitted(self) -> frozenset[str]:
        """The names of the estimators that have a say."""
        return frozenset(self._admitted)

    def admit(self, name: str, admitted: bool) -> None:
        """Give or take an estimator's say: estimates may change. Unknown names raise `KeyError`."""
        if all(estimator.name != name for estimator in self._estimators):
            raise KeyError(name)
        if admitted:
            self._admitted.add(name)
        else:
            self._admitted.discard(name)
        self._voices = [estimator for estimator in self._estimators if estimator.name in self._admitted]

    def observe(self, event: Event, now: float) -> Collection[str]:
        """Show the event to every estimator; return the agents that any of them names, each once."""
        changed: Collection[str] = ()
        for estimator in self._estimators:
            named = estimator.observe(event, now)
            if named:
                changed = dict.fromkeys((*changed, *named)) if changed else named
        return changed

    def estimate(self, agent: str, earliest: float = -math.inf) -> Estimate | None:
        """Return the nearest admitted estimate with `due >= earliest`, or None where there is none.

        With `earliest = now - grace`, what is overdue by more than `grace` clock units gives way to what
        comes next. A reader that stores the plain estimate has to ask so only once that is overdue.
        """
        bound = None if self._declared is None else self._declared.not_before(agent)
        if bound is not None and bound >= earliest:
            earliest = -math.inf
        best: Estimate | None = None
        for estimator in self._voices:
            estimate = estimator.estimate(agent, earliest)
            if estimate is not None and (best is None or estimate.due < best.due):
                best = estimate
        if best is None or bound is None or best.due >= bound:
            return best
        return Estimate(bound, best.confidence, f"{best.basis} (not before)")
