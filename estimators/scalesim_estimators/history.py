"""Agents of which nothing is told but their calls: what these alone foretell."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import ClassVar

from scalesim_client.events import AgentIdled, AgentReleased, ClockKind, InvocationStarted
from scalesim_estimators.base import ByType, Estimate, Handlers
from scalesim_estimators.followers import Followers
from scalesim_estimators.gaps import Gaps
from scalesim_estimators.roster import Roster
from scalesim_estimators.ways import ByHours, Follows, Period, Usual, Way

_LEADERS = 4
_CALLS_KEPT = 64
# There may be a million of them: all at once would take seconds.
_FORESEEN_AT_ONCE = 64


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
    __slots__ = (
        "_calls",
        "_followers",
        "_follows",
        "_gaps",
        "_hours",
        "_idle",
        "_last",
        "_period",
        "_recent",
        "_unforeseen",
        "_usual",
        "_ways",
        "agents",
        "clock",
    )

    def __init__(self, clock: ClockKind = "step", agents: Roster | None = None) -> None:
        self.clock = clock
        self.agents = Roster() if agents is None else agents
        """Those of the stream, for all that is kept of them."""
        self._gaps = Gaps()
        self._unforeseen: Iterator[int] = iter(())
        """Numbers of those who may have called before any gap was known, and aren't foreseen by it yet."""
        self._recent: deque[tuple[int, float]] = deque(maxlen=_LEADERS)
        self._last = self.agents.column("last", "d", -math.inf)
        self._calls = self.agents.column("calls", "B", 0)
        """How often each agent has called, as far as that counts."""
        self._idle = self.agents.column("idle", "B", 0)
        self._followers = Followers(self.agents)
        self._period, self._usual = Period(self.agents), Usual(self.agents)
        self._hours = ByHours(self.agents) if clock != "step" else None
        self._follows: Follows | None = None
        """In most populations nobody follows anybody: this comes with the first who does."""
        self._ways = self._known_ways()

    def estimate(self, agent: str, earliest: float = -math.inf) -> Estimate | None:
        """Return what the most confident way says that is not before `earliest`, or None."""
        number = self.agents.find(agent)
        if number is None or not self._calls[number] or self._idle[number]:
            return None
        last, best, surest, due = self._last[number], None, 0.0, math.inf
        for way in self._ways:
            gap = way.gap[number]
            if gap < math.inf and (said := last + gap) >= earliest:
                confidence = way.confidence(number)
                if confidence > surest:
                    best, surest, due = way, confidence, said
        if best is not None:
            # Many agents are foreseen for the same reason.
            return Estimate(due, surest, sys.intern(f"history: {best.why(number)}"))
        if self._usual.gap[number] == math.inf:
            return None
        longer = self._gaps.usual(earliest - last)
        if longer is None:
            return None
        # The sum may be rounded to just before.
        return Estimate(max(last + longer, earliest), self._usual.confidence(number), "history: late")

    def knows_anybody(self) -> bool:
        """Whether anybody has ever called."""
        return any(self._calls)

    def forget(self, agent: str) -> None:
        """Drop all that is known of an agent."""
        self.agents.leave(agent)

    def _known_ways(self) -> Sequence[Way]:
        """Return the ways that there are, the most telling first."""
        ways = (self._period, self._follows, self._hours, self._usual)
        return [way for way in ways if way is not None]

    def _known(self, agent: str) -> int | None:
        """Return the agent's number, None where it has never called."""
        number = self.agents.find(agent)
        return number if number is not None and self._calls[number] else None

    def _invoke(self, event: InvocationStarted, now: float) -> Collection[str]:
        agent = self.agents.enter(event.agent)
        before = self._last[agent]
        if now <= before:
            return ()
        if before > -math.inf:
            self._learn(agent, before, now)
        self._last[agent], self._idle[agent] = now, 0
        self._count(agent)
        usual = self._foresee_by_usual(agent, now - before)
        self._follow(agent, before, now)
        changed = dict.fromkeys((agent, *usual, *self._foresee_followers(agent, now)))
        return [self.agents.names[number] for number in changed]

    def _learn(self, agent: int, last: float, now: float) -> None:
        """Take in an invocation after the `last`."""
        if not self._idle[agent]:
            for way in self._ways:
                way.judge(agent, last, now)
        gaps = self._period.learn(agent, now - last)
        if self._follows is not None:
            self._follows.gap[agent] = math.inf
        if self._hours is not None:
            self._hours.learn(agent, now, gaps)

    def _count(self, agent: int) -> None:
        calls = self._calls[agent] + 1
        if calls > _CALLS_KEPT:
            calls //= 2
            self._followers.halve(agent)
        self._calls[agent] = calls

    def _foresee_by_usual(self, agent: int, ended: float) -> Collection[int]:
        """Take in the gap that the agent's call has ended, if any, and foresee it by everybody's; and, from the first
        gap of all on, with each call some of those who called before there was any. Return who is foreseen."""
        nothing_known = self._gaps.usual(0.0) is None
        if ended < math.inf:
            self._gaps.add(ended)
        gap = self._gaps.usual(0.0)
        if gap is None:
            return ()
        if nothing_known:
            self._unforeseen = iter(range(len(self._calls)))
        some = islice(self._unforeseen, _FORESEEN_AT_ONCE)
        waiting = [number for number in some if self._calls[number] and self._usual.gap[number] == math.inf]
        foreseen = [agent, *waiting]
        for number in foreseen:
            self._usual.gap[number] = gap
        return foreseen

    def _follow(self, agent: int, before: float, now: float) -> None:
        """Note whom the agent has followed, whose last call came at `before`."""
        for leader, at in self._recent:
            # The agent follows a leader's last invocation with its own first one since.
            if leader != agent and before < at == self._last[leader]:
                self._followers.note(leader, agent, now - at)
        self._recent.append((agent, now))

    def _foresee_followers(self, agent: int, now: float) -> Iterator[int]:
        """Foresee who was invoked after at least half of the agent's invocations, and yield them."""
        for follower, lag in self._followers.usual(agent, max(2.0, (self._calls[agent] - 1) / 2)):
            last = self._last[follower]
            if self._calls[follower] and last < now and not self._idle[follower]:
                if self._follows is None:
                    self._follows = Follows(self.agents)
                    self._ways = self._known_ways()
                self._follows.foresee(follower, now + lag - last, agent)
                yield follower

    def _rest(self, event: AgentIdled, now: float) -> Collection[str]:
        agent = self._known(event.agent)
        if agent is None:
            return ()
        self._idle[agent] = 1
        return (event.agent,)

    def _release(self, event: AgentReleased, now: float) -> Collection[str]:
        known = self._known(event.agent) is not None
        self.agents.leave(event.agent)
        return (event.agent,) if known else ()

    handlers: ClassVar[Handlers] = {
        InvocationStarted: _invoke,
        AgentIdled: _rest,
        AgentReleased: _release,
    }
