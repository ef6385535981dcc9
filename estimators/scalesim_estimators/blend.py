"""One estimate from several estimators, as far as they are admitted."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import ClassVar

from scalesim_client.events import Event
from scalesim_estimators.base import ByType, Estimate, Estimator, Listener, one_by_one
from scalesim_estimators.calendar import day_of
from scalesim_estimators.declared import DeclaredEstimator
from scalesim_estimators.history import HistoryEstimator
from scalesim_estimators.interaction import InteractionEstimator
from scalesim_estimators.notes import Said
from scalesim_estimators.path import PathEstimator
from scalesim_estimators.quality import BLEND, Quality
from scalesim_estimators.single import SingleDue, WokenEstimator

_Estimates = Callable[[Sequence[str], float], list[Estimate | None]]


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
        "_in_turns",
        "_meetings",
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
        self._in_turns = [
            (place, e) for place, e in enumerate(first) if isinstance(e, InteractionEstimator | PathEstimator)
        ]
        self._whole = history.clock == "step"
        self.quality = quality or Quality(
            names, history.agents, always=(WokenEstimator.name,), day=day_of(history.clock)
        )
        if self.quality.names != names:
            raise ValueError(f"this quality is that of {self.quality.names}, not of {names}")
        self._note = self.quality.estimated
        self._floor = (-math.inf, -math.inf)
        """Whatever was asked for last, and from when on that is: most ask for the same."""
        self._hearing: dict[type[Event], Sequence[tuple[int, Listener]]] = {}
        """Per type of event, who takes it in: places among the estimators."""
        self._meetings = next((e for e in first if isinstance(e, InteractionEstimator)), None)
        self._silent = {place for place, e in enumerate(first) if isinstance(e, ByType)}
        """Those who have never named an agent: they have nothing to say of any."""
        if self._meetings is not None and self._meetings.meets_anybody:
            self._silent.remove(first.index(self._meetings))
        if not history.knows_anybody():
            self._silent.add(len(first))
        self._ask_speakers()

    @property
    def estimators(self) -> Sequence[Estimator]:
        """All estimators, admitted or not, in the order that decides between equal dues."""
        return self._estimators

    def observe(self, event: Event, now: float) -> Collection[str]:
        """Show the event to every estimator; return the agents that any of them names, each once."""
        return dict.fromkeys(self.listen(type(event), (event,), now))

    def listen(self, kind: type[Event], events: Sequence[Event], now: float) -> Collection[str]:
        """Show a run of events of one type to every estimator: this comes to the same as one after the other. Return
        the agents that any of them names."""
        hearing = self._hearing.get(kind)
        if hearing is None:
            hearing = self._hearing[kind] = self._hearers(kind)
        changed: Collection[str] = ()
        for place, listen in hearing:
            named = listen(events, now)
            if named:
                self._speaks(place)
                changed = (*changed, *named) if changed else named
        return changed

    def ask(self, agent: str, earliest: float = -math.inf) -> list[Estimate | None]:
        """Return what each estimator says, admitted or not, in their order: its nearest estimate with
        `due >= earliest`, None where it has none."""
        said = {place: one for place, (one,) in self._said_of((agent,), earliest)}
        return [said.get(place) for place in range(len(self._estimators))]

    def estimate(self, agent: str, earliest: float = -math.inf) -> Estimate | None:
        """Return the estimate that holds, of those with `due >= earliest`, or None where there is none."""
        return self._chosen((agent,), self._said_of((agent,), earliest))[0]

    def renew(self, agents: Sequence[str], now: float, earliest: float = -math.inf) -> list[Estimate | None]:
        """Return of each agent the estimate that holds from clock value `now` on, and note for the score what each
        estimator says: for the agents that `observe`, `lapsed` or the score has named.

        What is before `earliest` gives way to what comes next; where nothing does, it is returned as it is, and
        counts as nothing in the score.
        """
        said = self._said_of(agents, earliest)
        self._note(agents, said, now)
        chosen = self._chosen(agents, said)
        if all(chosen) or earliest == -math.inf:
            return chosen
        return [one or self.estimate(agent) for agent, one in zip(agents, chosen, strict=True)]

    def lapsed(self, earliest: float, most: int = sys.maxsize) -> list[str]:
        """Return up to `most` agents of which an estimate that was noted lies before `earliest`, each once."""
        return self.quality.lapsed(earliest, most)

    def behind(self, earliest: float) -> bool:
        """Whether `go_on` may have agents to name."""
        for _, estimator in self._in_turns:
            if estimator.behind:
                return True
        return self.quality.behind(earliest)

    def go_on(self, earliest: float, most: int) -> Collection[str]:
        """Return agents whose estimate has changed with no event of their own, each once: up to `most` of which an
        estimate lies before `earliest`, some that another's move or activation has reached, and of those that a
        verdict concerns such as are among the next `most`."""
        changed = dict.fromkeys((*self.lapsed(earliest, most), *self.quality.differing(most)))
        for place, estimator in self._in_turns:
            named = estimator.go_on()
            if named:
                self._speaks(place)
                changed.update(dict.fromkeys(named))
        return changed

    def say_anew(self) -> InteractionEstimator | None:
        """All that was said is about to be said again, to another blend. Return what that takes over."""
        if self._meetings is not None:
            self._meetings.say_anew()
        return self._meetings

    def all_said(self, now: float) -> Collection[str]:
        """All that had been said before this blend was begun was said again by `now`. Return the agents whose estimate
        changes by what was not."""
        if self._meetings is None:
            return ()
        named = self._meetings.all_said(now)
        if named:
            self._speaks(self._estimators.index(self._meetings))
        return named

    def forget(self, agent: str) -> None:
        """Drop what is kept of an agent of which nothing is told any more."""
        self.history.forget(agent)
        self.quality.forget(agent)

    def _hearers(self, kind: type[Event]) -> Sequence[tuple[int, Listener]]:
        found = [
            e.listener(kind) if isinstance(e, ByType) else one_by_one(e.observe) for e in self._estimators
        ]
        return [(place, listen) for place, listen in enumerate(found) if listen is not None]

    def _speaks(self, place: int) -> None:
        if place in self._silent:
            self._silent.remove(place)
            self._ask_speakers()

    def _ask_speakers(self) -> None:
        """Have those asked from now on who may have something to say."""
        speakers = [(place, e) for place, e in enumerate(self._estimators) if place not in self._silent]
        self._asked: Sequence[tuple[int, _Estimates]] = [(place, self._asking(e)) for place, e in speakers]
        declared = [e.not_before for _, e in speakers if isinstance(e, DeclaredEstimator)]
        self._not_before = declared[0] if declared else None

    def _asking(self, estimator: Estimator) -> _Estimates:
        """Return what asks an estimator of some agents, for values that the clock can show."""
        if isinstance(estimator, SingleDue) and estimator.whole is self._whole:
            return estimator.estimates
        return partial(_asked_for_whole if self._whole else _asked_one_by_one, estimator)

    def _said_of(self, agents: Sequence[str], earliest: float) -> list[Said]:
        """Return what each estimator says of these agents that has something to say of any."""
        floor = self._floor_of(earliest)
        said = [(place, estimates(agents, floor)) for place, estimates in self._asked]
        if self._not_before is not None:
            for number, agent in enumerate(agents):
                bound = self._not_before(agent)
                if bound is not None:
                    self._raise(said, number, agent, bound, earliest)
        return said

    def _raise(self, said: Sequence[Said], number: int, agent: str, bound: float, earliest: float) -> None:
        """An agent doesn't call before a clock value: what is said of it is raised to that."""
        floor = -math.inf if bound >= earliest else self._floor_of(earliest)
        for (_, told), (_, estimates) in zip(said, self._asked, strict=True):
            raised = [None if one is None else _raised(one, bound) for one in estimates((agent,), floor)]
            told[number : number + 1] = _settled(raised) if self._whole else raised

    def _floor_of(self, earliest: float) -> float:
        """Return from when on an estimate counts as one that isn't before `earliest`."""
        if not self._whole:
            return earliest
        if earliest != self._floor[0]:
            self._floor = earliest, _just_after_the_step_before(earliest)
        return self._floor[1]

    def _chosen(self, agents: Sequence[str], said: Sequence[Said]) -> list[Estimate | None]:
        """Return the estimate that holds of each agent, by the rule of `nearest`."""
        chosen: list[Estimate | None] | None = None
        learned = len(self._estimators) - 1
        for place, told in said:
            if not self.quality.admitted[place]:
                continue
            if chosen is None:
                chosen = told
            elif place == learned:
                chosen = [one or other for one, other in zip(chosen, told, strict=True)]
            else:
                chosen = [
                    other if one is None or (other is not None and other.due < one.due) else one
                    for one, other in zip(chosen, told, strict=True)
                ]
        return [None] * len(agents) if chosen is None else chosen


def _asked_one_by_one(estimator: Estimator, agents: Sequence[str], earliest: float) -> list[Estimate | None]:
    return [estimator.estimate(agent, earliest) for agent in agents]


def _asked_for_whole(estimator: Estimator, agents: Sequence[str], earliest: float) -> list[Estimate | None]:
    return _settled(_asked_one_by_one(estimator, agents, earliest))


def _settled(said: list[Estimate | None]) -> list[Estimate | None]:
    """Return the estimates as values that a clock of steps can show."""
    return [
        one._replace(due=float(math.ceil(one.due))) if one is not None and one.due % 1 > 0 else one
        for one in said
    ]


def _just_after_the_step_before(earliest: float) -> float:
    """Return from when on something falls to the first step that isn't before `earliest`."""
    return math.nextafter(math.ceil(earliest) - 1, math.inf) if earliest > -math.inf else earliest


def _raised(estimate: Estimate, bound: float) -> Estimate:
    if estimate.due >= bound:
        return estimate
    return Estimate(bound, estimate.confidence, f"{estimate.basis} (not before)")
