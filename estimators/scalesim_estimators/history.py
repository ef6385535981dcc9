"""Agents of which nothing is told but their calls: what these alone foretell."""

from __future__ import annotations

import math
import sys
from array import array
from collections import deque
from collections.abc import Collection, Iterator
from statistics import median
from typing import ClassVar

from scalesim_client.events import AgentIdled, AgentReleased, ClockKind, InvocationStarted
from scalesim_estimators.base import ByType, Estimate
from scalesim_estimators.gaps import Gaps

_GAPS_KEPT = 16
_LONGEST_RUN = 8
_TOLERANCE = 0.1
_TRIALS_KEPT = 8.0
_LEADERS = 4
_FOLLOWERS = 8
_CALLS_KEPT = 64
_DAY = 86_400.0
_DAYS_KEPT = 14
_HOURS = 24


class HistoryEstimator(ByType):
    """Due as the agent's own calls, and who called before it, foretell. Needs no event but `invocation.started`.

    Four ways, each with its own record per agent:

    - *period*: the gap that followed when the last gaps ran like this before, so that a steady period, a cycle
      of several gaps and bursts are one; where they never did, the median of the last 16 gaps.
    - *hours*, where the clock counts seconds: the agent's calls per hour of the day, over the days since it is
      known (14 to 28 of them), are its rate; due when they add up to one call since the last.
    - *follows*: the agent was called after the same other one at least every second time that this was; due
      after the usual lag, if there is one. Looked at are the 4 agents invoked before it, of which each keeps
      its 8 most frequent followers (space saving; A. Metwally et al., ICDT 2005).
    - *usual*: the median of everybody's gaps, which is known before an agent has many of its own. So who has
      just called is farther than who called a while ago, where that is how a population behaves.

    A way is right where the invocation comes within a clock unit, or a tenth of the time since the agent's last
    one, from when it said. Its confidence is the share that was right of the last 8 or so, and the most
    confident way speaks. An agent that has not called when it was foreseen is due after the median of everybody's
    gaps that were longer, while there are any; one that is idle is not foreseen until it has called again.

    Several invocations of an agent at one clock value are one. Memory per agent is bounded, whatever happens.
    """

    name: ClassVar[str] = "history"
    __slots__ = ("_gaps", "_pasts", "_recent", "clock")

    def __init__(self, clock: ClockKind = "step") -> None:
        self.clock = clock
        self._gaps = Gaps()
        self._pasts: dict[str, _Past] = {}
        self._recent: deque[tuple[str, float]] = deque(maxlen=_LEADERS)
        self._handlers = {
            InvocationStarted: self._invoke,
            AgentIdled: self._rest,
            AgentReleased: self._release,
        }

    def estimate(self, agent: str, earliest: float = -math.inf) -> Estimate | None:
        """Return what the most confident way says that is not before `earliest`, or None."""
        past = self._pasts.get(agent)
        if past is None:
            return None
        best: _Way | None = None
        for way in past.ways:
            if earliest <= way.due < math.inf and way.confidence > (best.confidence if best else 0.0):
                best = way
        if best is not None:
            return Estimate(best.due, best.confidence, f"history: {best.why}")
        if past.usual.due == math.inf:
            return None
        gap = self._gaps.usual(earliest - past.last)
        return None if gap is None else Estimate(past.last + gap, past.usual.confidence, "history: late")

    def forget(self, agent: str) -> None:
        """Drop all that is known of an agent."""
        self._pasts.pop(agent, None)

    def _invoke(self, event: InvocationStarted, now: float) -> Collection[str]:
        agent = event.agent
        past = self._pasts.get(agent)
        before = -math.inf if past is None else past.last
        if past is None:
            past = self._pasts[agent] = _Past(now, by_hours=self.clock != "step")
        elif now <= before:
            return ()
        else:
            past.invoked(now)
        usual = self._foresee_by_usual(agent, now - before)
        self._follow(agent, before, now)
        return list(dict.fromkeys((agent, *usual, *self._foresee_followers(agent, now))))

    def _foresee_by_usual(self, agent: str, ended: float) -> Collection[str]:
        """Take in the gap that the agent's call has ended, if any, and foresee it by everybody's; with the first gap of
        all, everybody. Return who is foreseen."""
        nothing_known = self._gaps.usual(0.0) is None
        if ended < math.inf:
            self._gaps.add(ended)
        gap = self._gaps.usual(0.0)
        if gap is None:
            return ()
        foreseen = list(self._pasts) if nothing_known else [agent]
        for name in foreseen:
            self._pasts[name].foresee_usual(gap)
        return foreseen

    def _follow(self, agent: str, before: float, now: float) -> None:
        """Note whom the agent has followed, whose last call came at `before`."""
        for leader, at in self._recent:
            known = self._pasts.get(leader)
            # The agent follows a leader's last invocation with its own first one since.
            if known is not None and leader != agent and before < at == known.last:
                known.followed_by(agent, now - at)
        self._recent.append((agent, now))

    def _foresee_followers(self, agent: str, now: float) -> Iterator[str]:
        """Foresee who usually follows the agent, and yield them."""
        for follower, lag in self._pasts[agent].usual_followers():
            theirs = self._pasts.get(follower)
            if theirs is not None and theirs.last < now and not theirs.idle:
                theirs.foresee_as_follower(now + lag, f"follows {agent}")
                yield follower

    def _rest(self, event: AgentIdled, now: float) -> Collection[str]:
        past = self._pasts.get(event.agent)
        if past is None:
            return ()
        past.rest()
        return (event.agent,)

    def _release(self, event: AgentReleased, now: float) -> Collection[str]:
        return () if self._pasts.pop(event.agent, None) is None else (event.agent,)


class _Way:
    """One way to foresee an agent's next invocation: what it says, and how often it was right lately."""

    __slots__ = ("_hits", "_last", "_trials", "due", "why")

    def __init__(self) -> None:
        self.due = math.inf
        self.why = ""
        self._last = 0.0
        self._hits = self._trials = 0.0

    @property
    def confidence(self) -> float:
        """Share of the latest trials that were right, as if half a one of two before them had been."""
        return (self._hits + 0.5) / (self._trials + 2.0)

    def say(self, due: float, last: float, why: str) -> None:
        """Foresee an invocation at `due` of an agent that was last invoked at `last`."""
        # Many agents are foreseen for the same reason.
        self.due, self._last, self.why = due, last, sys.intern(why)

    def judge(self, now: float) -> None:
        """The agent is invoked: what was said is right or wrong, and no longer holds."""
        if self.due == math.inf:
            return
        self._hits += abs(now - self.due) <= max(1.0, _TOLERANCE * (now - self._last))
        self._trials += 1.0
        if self._trials > _TRIALS_KEPT:
            self._hits *= _TRIALS_KEPT / self._trials
            self._trials = _TRIALS_KEPT
        self.due = math.inf


_SILENT = _Way()
"""The way of all who were never foreseen by it."""


class _Past:
    """What is kept of one agent's invocations."""

    __slots__ = (
        "_calls",
        "_first",
        "_followers",
        "_gaps",
        "_hourly",
        "follows",
        "hours",
        "idle",
        "last",
        "period",
        "usual",
    )

    def __init__(self, now: float, *, by_hours: bool) -> None:
        self.last = now
        self._first = now
        self._calls = 1
        self._gaps: list[float] = []
        self._hourly = array("d", bytes(8 * _HOURS)) if by_hours else None
        self._followers: dict[str, tuple[float, float, float, float]] = {}
        """Who was invoked after the agent: how often, how much of that is doubtful, how long after, and by how much
        that varies."""
        self.idle = False
        self.period, self.usual = _Way(), _Way()
        self.hours = _Way() if by_hours else _SILENT
        self.follows = _SILENT
        self._count_hour(now)

    @property
    def ways(self) -> tuple[_Way, ...]:
        """The most telling first."""
        return self.period, self.follows, self.hours, self.usual

    def invoked(self, now: float) -> None:
        """Take in the agent's next invocation."""
        for way in self.ways:
            way.judge(now)
        self._gaps.append(now - self.last)
        del self._gaps[:-_GAPS_KEPT]
        self.last, self.idle = now, False
        self._calls += 1
        if self._calls > _CALLS_KEPT:
            self._calls //= 2
            for agent, (count, doubtful, lag, spread) in self._followers.items():
                self._followers[agent] = (count / 2, doubtful / 2, lag, spread)
        self._count_hour(now)
        gap, why = _next_gap(self._gaps)
        self.period.say(now + gap, now, why)
        if self._hourly is not None and now - self._first >= _DAY:
            self.hours.say(self._due_by_hours(self._hourly), now, "hours of the day")

    def rest(self) -> None:
        """Foresee nothing until the agent is invoked again."""
        self.idle = True
        for way in self.ways:
            way.due = math.inf

    def foresee_usual(self, gap: float) -> None:
        """Foresee the next call after a gap that is usual."""
        if not self.idle:
            self.usual.say(self.last + gap, self.last, f"usual gap {gap:.4g}")

    def foresee_as_follower(self, due: float, why: str) -> None:
        """Foresee the next call after somebody else's."""
        if self.follows is _SILENT:
            self.follows = _Way()
        self.follows.say(due, self.last, why)

    def followed_by(self, agent: str, lag: float) -> None:
        """Another agent was invoked `lag` clock units after this one's last invocation, and not since."""
        known = self._followers.get(agent)
        if known is not None:
            count, doubtful, usual, spread = known
            spread += (abs(lag - usual) - spread) / 4
            self._followers[agent] = (count + 1, doubtful, usual + (lag - usual) / 4, spread)
            return
        inherited = 0.0
        if len(self._followers) == _FOLLOWERS:
            rarest = min(self._followers, key=self._followers.__getitem__)
            inherited = self._followers.pop(rarest)[0]
        self._followers[agent] = (inherited + 1, inherited, lag, 0.0)

    def usual_followers(self) -> Iterator[tuple[str, float]]:
        """Yield who was invoked after at least half of this agent's invocations, and how long after, where that is
        nearly always the same."""
        least = max(2.0, (self._calls - 1) / 2)
        for agent, (count, doubtful, lag, spread) in self._followers.items():
            if count - doubtful >= least and spread <= max(1.0, lag / 4):
                yield agent, lag

    def _count_hour(self, now: float) -> None:
        if self._hourly is None:
            return
        self._hourly[_hour(now)] += 1
        if now - self._first > 2 * _DAYS_KEPT * _DAY:
            self._first = now - _DAYS_KEPT * _DAY
            for hour in range(_HOURS):
                self._hourly[hour] /= 2

    def _due_by_hours(self, hourly: array[float]) -> float:
        """Return when the calls that are usual at these hours will have added up to one since the last."""
        days = (self.last - self._first) / _DAY
        left = days  # in calls of all days together
        whole = left // sum(hourly)
        left -= whole * sum(hourly)
        at, hour = self.last, _hour(self.last)
        rest = 1.0 - at % (_DAY / _HOURS) / (_DAY / _HOURS)
        for _ in range(_HOURS + 1):
            if left <= hourly[hour] * rest:
                break
            left -= hourly[hour] * rest
            at += rest * _DAY / _HOURS
            hour, rest = (hour + 1) % _HOURS, 1.0
        share = left / hourly[hour] if hourly[hour] else 0.0
        return at + whole * _DAY + min(share, 1.0) * _DAY / _HOURS


def _next_gap(gaps: list[float]) -> tuple[float, str]:
    """Return the gap that follows, and why: the median of those that did where the latest ran like the last now."""
    longest, followed = 0, gaps
    for place in range(len(gaps) - 1):
        run = _run(gaps, place)
        if run > longest:
            longest, followed = run, [gaps[place + 1]]
        elif run == longest and run:
            followed.append(gaps[place + 1])
    gap = median(followed)
    if not longest:
        return gap, f"median gap {gap:.4g}"
    return gap, f"period {gap:.4g}" if _alike(gap, gaps[-1]) else f"gap {gap:.4g} after {gaps[-1]:.4g}"


def _run(gaps: list[float], place: int) -> int:
    """Return how many gaps up to `place` are like as many up to the last."""
    run = 0
    while run < _LONGEST_RUN and run <= place and _alike(gaps[place - run], gaps[-1 - run]):
        run += 1
    return run


def _alike(one: float, two: float) -> bool:
    return abs(one - two) <= _TOLERANCE * max(one, two)


def _hour(now: float) -> int:
    return int(now % _DAY * _HOURS / _DAY) % _HOURS
