"""One estimate from several estimators, as far as they are admitted."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any, ClassVar

from scalesim_client.events import Event
from scalesim_estimators.base import ByType, Estimate, Estimator
from scalesim_estimators.calendar import day_of
from scalesim_estimators.declared import DeclaredEstimator
from scalesim_estimators.history import HistoryEstimator
from scalesim_estimators.nearest import nearest
from scalesim_estimators.quality import BLEND, Quality
from scalesim_estimators.single import WokenEstimator

_Estimate = Callable[[str, float], Estimate | None]
_Observe = Callable[[Any, float], Collection[str]]


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
    __slots__ = (
        "_asked",
        "_estimators",
        "_floor",
        "_hearing",
        "_not_before",
        "_note",
        "_silent",
        "_whole",
        "history",
        "quality",
    )

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
        self._whole = history.clock == "step"
        self.quality = quality or Quality(
            names, history.agents, always=(WokenEstimator.name,), day=day_of(history.clock)
        )
        if self.quality.names != names:
            raise ValueError(f"this quality is that of {self.quality.names}, not of {names}")
        self._note = self.quality.estimated
        self._floor = (-math.inf, -math.inf)
        """Whatever was asked for last, and from when on that is: most ask for the same."""
        self._hearing: dict[type[Event], Sequence[tuple[int, _Observe]]] = {}
        """Per type of event, who takes it in: places among the estimators."""
        self._silent = {place for place, e in enumerate(first) if isinstance(e, ByType)}
        """Those who have never named an agent: they have nothing to say of any."""
        if not history.knows_anybody():
            self._silent.add(len(first))
        self._ask_speakers()

    @property
    def estimators(self) -> Sequence[Estimator]:
        """All estimators, admitted or not, in the order that decides between equal dues."""
        return self._estimators

    def observe(self, event: Event, now: float) -> Collection[str]:
        """Show the event to every estimator; return the agents that any of them names, each once."""
        hearing = self._hearing.get(type(event))
        if hearing is None:
            hearing = self._hearing[type(event)] = self._hearers(type(event))
        changed: Collection[str] = ()
        for place, observe in hearing:
            named = observe(event, now)
            if named:
                if place in self._silent:
                    self._silent.remove(place)
                    self._ask_speakers()
                changed = dict.fromkeys((*changed, *named)) if changed else named
        return changed

    def ask(self, agent: str, earliest: float = -math.inf) -> list[Estimate | None]:
        """Return what each estimator says, admitted or not, in their order: its nearest estimate with
        `due >= earliest`, None where it has none."""
        return self._ask(agent, earliest)[0]

    def estimate(self, agent: str, earliest: float = -math.inf) -> Estimate | None:
        """Return the estimate that holds, of those with `due >= earliest`, or None where there is none."""
        estimates, dues, speakers = self._ask(agent, earliest)
        return self._choose(estimates, dues, speakers)

    def renew(self, agent: str, now: float, earliest: float = -math.inf) -> Estimate | None:
        """Return the estimate that holds from clock value `now` on, and note for the score what each estimator
        says: for the agents that `observe`, `lapsed` or the score has named.

        What is before `earliest` gives way to what comes next; where nothing does, it is returned as it is, and
        counts as nothing in the score.
        """
        estimates, dues, speakers = self._ask(agent, earliest)
        self._note(agent, dues, estimates, now)
        chosen = self._choose(estimates, dues, speakers)
        return self.estimate(agent) if chosen is None else chosen

    def lapsed(self, earliest: float) -> list[str]:
        """Return the agents of which an estimate that was noted lies before `earliest`, each once."""
        return self.quality.lapsed(earliest)

    def forget(self, agent: str) -> None:
        """Drop what is kept of an agent of which nothing is told any more."""
        self.history.forget(agent)
        self.quality.forget(agent)

    def _hearers(self, kind: type[Event]) -> Sequence[tuple[int, _Observe]]:
        found = [e.handler(kind) if isinstance(e, ByType) else e.observe for e in self._estimators]
        return [(place, observe) for place, observe in enumerate(found) if observe is not None]

    def _ask_speakers(self) -> None:
        """Have those asked from now on who may have something to say."""
        speakers = [(place, e) for place, e in enumerate(self._estimators) if place not in self._silent]
        self._asked: Sequence[tuple[int, _Estimate]] = [(place, e.estimate) for place, e in speakers]
        declared = [e.not_before for _, e in speakers if isinstance(e, DeclaredEstimator)]
        self._not_before = declared[0] if declared else None

    def _ask(
        self, agent: str, earliest: float
    ) -> tuple[list[Estimate | None], tuple[float, ...], Sequence[int]]:
        """Return what each estimator says, the dues of that, infinity for None, and the places of those who speak."""
        bound = None if self._not_before is None else self._not_before(agent)
        if bound is not None and bound >= earliest:
            earliest = -math.inf
        elif self._whole:
            if earliest != self._floor[0]:
                self._floor = earliest, _just_after_the_step_before(earliest)
            earliest = self._floor[1]
        number = len(self._estimators)
        estimates: list[Estimate | None] = [None] * number
        dues, speakers = [math.inf] * number, []
        for place, estimate_of in self._asked:
            estimate = estimate_of(agent, earliest)
            if estimate is None:
                continue
            if bound is not None:
                estimate = _raised(estimate, bound)
            due = estimate.due
            if self._whole and due % 1 > 0:
                due = float(math.ceil(due))
                estimate = estimate._replace(due=due)
            estimates[place], dues[place] = estimate, due
            speakers.append(place)
        return estimates, tuple(dues), speakers

    def _choose(
        self, estimates: Sequence[Estimate | None], dues: Sequence[float], speakers: Sequence[int]
    ) -> Estimate | None:
        if len(speakers) == 1:
            place = speakers[0]
            return estimates[place] if self.quality.admitted[place] else None
        whose = nearest(dues, self.quality.admitted).whose
        return None if whose < 0 else estimates[whose]


def _just_after_the_step_before(earliest: float) -> float:
    """Return from when on something falls to the first step that isn't before `earliest`."""
    return math.nextafter(math.ceil(earliest) - 1, math.inf) if earliest > -math.inf else earliest


def _raised(estimate: Estimate, bound: float) -> Estimate:
    if estimate.due >= bound:
        return estimate
    return Estimate(bound, estimate.confidence, f"{estimate.basis} (not before)")
