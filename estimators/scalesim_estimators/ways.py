"""The ways in which an agent's own invocations, and others' before them, foretell the next one."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence, Set
from itertools import accumulate
from statistics import median
from typing import ClassVar

from scalesim_estimators.hours import DAY, Hours
from scalesim_estimators.roster import Roster

_GAPS_KEPT = 16
_LONGEST_RUN = 8
_TOLERANCE = 0.1
_TRIALS_KEPT = 8
_MEDIAN, _PERIOD, _AFTER = range(3)
_NOBODY = 2**32 - 1


class Way:
    """One way to foresee invocations: what it says of each agent, and how often it was right of it lately.

    It is right where the invocation comes within a clock unit, or a tenth of the time since the agent's last one, from
    when it said.
    """

    name: ClassVar[str]
    __slots__ = ("_hits", "_trials", "gap")

    def __init__(self, agents: Roster) -> None:
        self.gap: array[float] = agents.column(f"{self.name} gap", "d", math.inf)
        """Clock units from each agent's last invocation to the one that is foreseen, infinity for none."""
        self._hits: array[float] = agents.column(f"{self.name} hits", "f", 0.0)
        self._trials: array[int] = agents.column(f"{self.name} trials", "B", 0)

    def confidence(self, agent: int) -> float:
        """Return the share of the latest trials that were right, as if half a one of two before them had been."""
        return (self._hits[agent] + 0.5) / (self._trials[agent] + 2.0)

    def judge(self, agent: int, last: float, now: float) -> None:
        """The agent is invoked, after `last`: what was said is right or wrong."""
        gap = self.gap[agent]
        if gap == math.inf:
            return
        hits = self._hits[agent] + (abs(now - (last + gap)) <= max(1.0, _TOLERANCE * (now - last)))
        trials = self._trials[agent] + 1
        if trials > _TRIALS_KEPT:
            hits, trials = hits * _TRIALS_KEPT / trials, _TRIALS_KEPT
        self._hits[agent], self._trials[agent] = hits, trials

    def why(self, agent: int) -> str:
        """Return for people why it says what it says."""
        raise NotImplementedError


class Usual(Way):
    """The median of everybody's gaps, as it was when the agent was last invoked."""

    name = "usual"
    __slots__ = ()

    def why(self, agent: int) -> str:
        """Return for people why it says what it says."""
        return f"usual gap {self.gap[agent]:.4g}"


class Period(Way):
    """The gap that followed when the last gaps ran like this before; where they never did, their median."""

    name = "period"
    __slots__ = ("_kinds", "_several")

    def __init__(self, agents: Roster) -> None:
        super().__init__(agents)
        self._kinds = agents.column("period kind", "B", _MEDIAN)
        self._several: list[bytes | None] = agents.objects("gaps")
        """The last 16 gaps of each agent, packed; a single one is what is foreseen already."""

    def gaps(self, agent: int) -> list[float]:
        """Return the agent's last gaps, the newest last."""
        several = self._several[agent]
        if several is not None:
            return array("d", several).tolist()
        return [] if self.gap[agent] == math.inf else [self.gap[agent]]

    def learn(self, agent: int, gap: float) -> list[float]:
        """Take in the gap that an invocation has ended, and foresee the next; return the last gaps, and the one before
        them."""
        gaps = self.gaps(agent)
        gaps.append(gap)
        latest = gaps[-_GAPS_KEPT:]
        if len(gaps) > 1:
            self._several[agent] = array("d", latest).tobytes()
        self.gap[agent], self._kinds[agent] = _next_gap(latest)
        return gaps

    def why(self, agent: int) -> str:
        """Return for people why it says what it says."""
        gap = f"{self.gap[agent]:.4g}"
        match self._kinds[agent]:
            case 1:
                return f"period {gap}"
            case 2:
                return f"gap {gap} after {self.gaps(agent)[-1]:.4g}"
        return f"median gap {gap}"


class Follows(Way):
    """The usual lag after another agent's invocation."""

    name = "follows"
    __slots__ = ("_leaders", "_names")

    def __init__(self, agents: Roster) -> None:
        super().__init__(agents)
        self._leaders = agents.column("leader", "I", 0)
        self._names = agents.names
        agents.tell_who_left(self._drop)

    def foresee(self, agent: int, gap: float, leader: int) -> None:
        """Foresee an invocation after somebody else's."""
        self.gap[agent], self._leaders[agent] = gap, leader

    def why(self, agent: int) -> str:
        """Return for people why it says what it says."""
        leader = self._leaders[agent]
        return "follows one that has left" if leader == _NOBODY else f"follows {self._names[leader]}"

    def _drop(self, left: Set[int]) -> None:
        for agent, leader in enumerate(self._leaders):
            if leader in left:
                self._leaders[agent] = _NOBODY


class ByHours(Way):
    """The agent's rate at the hours of the day, on a clock of seconds."""

    name = "hours"
    __slots__ = ("_hours",)

    def __init__(self, agents: Roster) -> None:
        super().__init__(agents)
        self._hours: list[Hours | None] = agents.objects("hours")

    def learn(self, agent: int, now: float, gaps: Sequence[float]) -> None:
        """Take in an invocation, which has ended the last of the agent's last `gaps`. Hours are counted when there is a
        day of them, or more gaps than are kept."""
        hours = self._hours[agent]
        if hours is not None:
            hours.count(now)
        elif len(gaps) > _GAPS_KEPT or sum(gaps) >= DAY:
            calls = [*accumulate((-gap for gap in reversed(gaps)), initial=now)]
            hours = self._hours[agent] = Hours(reversed(calls))
        gap = None if hours is None else hours.gap(now)
        self.gap[agent] = math.inf if gap is None else gap

    def why(self, agent: int) -> str:
        """Return for people why it says what it says."""
        return "hours of the day"


def _next_gap(gaps: list[float]) -> tuple[float, int]:
    """Return the gap that follows, and of what kind it is: the median of those that did where the latest ran like the
    last now."""
    longest, followed = 0, gaps
    for place in range(len(gaps) - 1):
        run = _run(gaps, place)
        if run > longest:
            longest, followed = run, [gaps[place + 1]]
        elif run == longest and run:
            followed.append(gaps[place + 1])
    gap = median(followed)
    if not longest:
        return gap, _MEDIAN
    return gap, _PERIOD if _alike(gap, gaps[-1]) else _AFTER


def _run(gaps: list[float], place: int) -> int:
    """Return how many gaps up to `place` are like as many up to the last."""
    run = 0
    while run < _LONGEST_RUN and run <= place and _alike(gaps[place - run], gaps[-1 - run]):
        run += 1
    return run


def _alike(one: float, two: float) -> bool:
    return abs(one - two) <= _TOLERANCE * max(one, two)
