"""Agents that meet: due when another one comes within sight."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from itertools import islice
from typing import ClassVar

from scalesim_client.events import AgentIdled, AgentMoved, AgentReleased, InvocationStarted
from scalesim_estimators.base import ByType, Estimate, Handlers
from scalesim_estimators.grid import Strip, StripGrid
from scalesim_estimators.motion import Contacts, Motion, contacts, walk
from scalesim_estimators.roster import Roster

_FARTHEST = 1e9
"""Space units from the origin beyond which a position takes no part: rounding would exceed the grid's."""

MOST_NEIGHBOURS = 64
"""With so many an agent that moves is compared."""
PAIRS_PER_EVENT = 8
PAIRS_PER_TURN = 500


class InteractionEstimator(ByType):
    """Due at the agent's nearest meeting with another agent.

    Each `agent.moved` tells a whole motion (what it leaves out is unknown, not as before): the agent walks
    straight from `xy` to `destination` at `speed` space units per clock unit and stands there; without
    destination or speed it stands at `xy`. Without `xy` it meets nobody, since a place's name tells no
    distance; nor does it with a declared vision of 0. Two agents meet when their distance first falls to
    R = max(vision of either), 0 where neither tells it, which on a straight approach is

        meeting = now + max(0, distance - R) / closing speed        (clock units)

    and never where their ways do not come so near (see `motion.contacts`). Two walkers with the same
    destination and R = 0 meet when the later one arrives, after distance / speed. A meeting keeps its clock
    value as long as the two stay near each other. It counts for an agent unless it began at or before the
    agent's last invocation or less than `cooldown` clock units after it: agents that stand together are due
    once, not for ever.

    One event costs its neighbourhood: a grid over the ways gives the agents to compare with, never all of
    them, and no more than 64: where there are more, those near where the agent is, of these the ones that moved
    last. Nobody meets more than 128. An event compares no more than 8 pairs; the others are compared in the order in
    which agents moved, with the next events and by `go_on`. Until then what was foreseen holds.
    """

    name: ClassVar[str] = "interaction"
    __slots__ = (
        "_agents",
        "_anew",
        "_best",
        "_cooldown",
        "_grid",
        "_idle",
        "_meetings",
        "_motions",
        "_moved",
        "_queue",
        "_unsaid",
        "_unsaid_idle",
        "_work",
    )

    def __init__(self, cooldown: float = 0.0, agents: Roster | None = None) -> None:
        self._agents = Roster() if agents is None else agents
        self._cooldown = cooldown
        self._grid = StripGrid()
        self._motions: dict[str, Motion] = {}
        self._meetings: dict[str, dict[str, Contacts]] = {}
        """Per agent and other agent, when they are near each other; the same under both."""
        self._best: dict[str, tuple[float, str]] = {}
        """Per agent its nearest meeting that counts, and with whom."""
        self._idle: set[str] = set()
        self._anew: dict[str, float] | None = None
        """Since `say_anew`, who has moved otherwise than before, and when."""
        self._unsaid: set[str] = set()
        """Whose motion has not been said again since `say_anew`."""
        self._unsaid_idle: set[str] = set()
        """The same of those who were idle."""
        self._moved: dict[str, tuple[float, Sequence[str]]] = {}
        """Who is still to be compared with its neighbours: when it moved last, and who they were then."""
        self._queue: deque[str] = deque()
        """The same, who has waited longest first."""
        self._work: Iterator[str | None] | None = None
        """The comparison that was begun, a step a pair: each yields the agent whose estimate it has changed, if any."""

    def estimate(self, agent: str, earliest: float = -math.inf) -> Estimate | None:
        """Return the agent's nearest meeting that counts and is not before `earliest`, or None."""
        best = self._best.get(agent)
        if best is not None and best[0] < earliest:
            best = self._nearest(agent, earliest)
        return None if best is None else Estimate(best[0], 0.6, f"interaction with {best[1]}")

    @property
    def behind(self) -> bool:
        """Whether `go_on` has anything to do."""
        return self._work is not None or bool(self._queue)

    def go_on(self, pairs: int = PAIRS_PER_TURN) -> Collection[str]:
        """Compare so many pairs more of those that are left; return the agents whose estimate this has changed."""
        changed: dict[str, None] = {}
        while pairs and self.behind:
            if self._work is None:
                self._work = self._compare(self._queue.popleft())
            done = list(islice(self._work, pairs))
            changed.update((agent, None) for agent in done if agent is not None)
            pairs -= len(done)
            if pairs:
                self._work = None
        return changed

    @property
    def meets_anybody(self) -> bool:
        """Whether a meeting of anybody is foreseen."""
        return bool(self._best)

    def say_anew(self) -> None:
        """All that was said is about to be said again, each as of the clock value at which it was: what was compared
        already is not compared again, and a meeting that goes on keeps its beginning."""
        self._unsaid, self._anew = set(self._motions), {}
        self._unsaid_idle, self._idle = self._idle, set()

    def all_said(self, now: float) -> Collection[str]:
        """What wasn't said again since `say_anew` holds no longer. Return the agents whose estimate changes by that."""
        unsaid, self._unsaid = self._unsaid, set()
        anew, self._anew = self._anew or {}, None
        idle, self._unsaid_idle = self._unsaid_idle - self._idle, set()
        changed = {agent: None for agent in idle if self._renew(agent)}
        for agent in unsaid:
            changed.update(dict.fromkeys(self._move(agent, None, now)))
        for agent, moved_at in anew.items():
            changed.update(dict.fromkeys(self._look_around(agent, moved_at)))
        return changed

    def _go(self, event: AgentMoved, now: float) -> Collection[str]:
        agent, motion = event.agent, _motion(event, now)
        self._unsaid.discard(agent)
        if motion is not None and motion == self._motions.get(agent):
            if agent not in self._idle:
                return ()
            self._idle.discard(agent)
            return (agent,) if self._renew(agent) else ()
        self._idle.discard(agent)
        return self._move(agent, motion, now)

    def _invoke(self, event: InvocationStarted, now: float) -> Collection[str]:
        self._idle.discard(event.agent)
        self._agents.call(event.agent, now)
        return (event.agent,) if self._renew(event.agent) else ()

    def _rest(self, event: AgentIdled, now: float) -> Collection[str]:
        self._idle.add(event.agent)
        return (event.agent,) if self._renew(event.agent) else ()

    def _release(self, event: AgentReleased, now: float) -> Collection[str]:
        changed = self._move(event.agent, None, now)
        self._agents.never_called(event.agent)
        self._idle.discard(event.agent)
        return changed

    def _move(self, agent: str, motion: Motion | None, now: float) -> Collection[str]:
        """Let this be the agent's motion; None takes it off the ground."""
        if motion is None:
            if self._motions.pop(agent, None) is None:
                return ()
            self._grid.remove(agent)
        else:
            self._motions[agent] = motion
            self._grid.insert(agent, Strip(motion.x, motion.y, motion.to_x, motion.to_y, motion.vision))
        if self._anew is not None:
            # Who is near may be about to leave the ground.
            self._anew[agent] = now
            return ()
        return self._look_around(agent, now)

    def _look_around(self, agent: str, now: float) -> Collection[str]:
        """Have the agent, which has moved at `now`, compared with its neighbours."""
        neighbours = self._grid.near(agent, MOST_NEIGHBOURS) if agent in self._motions else ()
        if agent not in self._moved:
            self._queue.append(agent)
        self._moved[agent] = now, neighbours
        return self.go_on(PAIRS_PER_EVENT)

    def _compare(self, agent: str) -> Iterator[str | None]:
        """Compare the agent's motion with its neighbours'."""
        (now, neighbours), motion = self._moved.pop(agent), self._motions.get(agent)
        before = self._meetings.pop(agent, {})
        for other in neighbours:
            neighbour = self._motions.get(other)
            if motion is not None and neighbour is not None:
                near = contacts(motion, neighbour, max(motion.start, neighbour.start))
                if near and (other in before or self._has_room(agent, other)):
                    near = _continued(before.pop(other, ()), near, now)
                    yield other if self._meet(agent, other, near, now) else None
                    continue
            yield None
        for other in before:
            yield other if self._part(agent, other, now) else None
        best = self._best.get(agent)
        yield agent if self._renew(agent) or (best is not None and best[0] < now) else None

    def _has_room(self, agent: str, other: str) -> bool:
        return all(len(self._meetings.get(one, ())) < 2 * MOST_NEIGHBOURS for one in (agent, other))

    def _meet(self, agent: str, other: str, near: Contacts, now: float) -> bool:
        """Note when the agent, which has moved, is near another; return whether the other's estimate changes."""
        self._meetings.setdefault(agent, {})[other] = near
        self._meetings.setdefault(other, {})[agent] = near
        best, meeting = self._best.get(other), self._first(other, near)
        if meeting is not None and (best is None or (meeting, agent) <= best):
            self._best[other] = (meeting, agent)
            return best != (meeting, agent)
        if best is not None and best[1] == agent:
            return self._renew(other)
        # Where the nearest came to nothing, a later one holds in its place.
        return best is not None and best[0] < now

    def _part(self, agent: str, other: str, now: float) -> bool:
        """Forget when the two were near each other; return whether the other's estimate changes."""
        del self._meetings[other][agent]
        best = self._best.get(other)
        return best is not None and (self._renew(other) if best[1] == agent else best[0] < now)

    def _renew(self, agent: str) -> bool:
        """Work out the agent's nearest meeting again; return whether it changed."""
        before = self._best.get(agent)
        best = self._nearest(agent, -math.inf)
        if best is not None:
            self._best[agent] = best
        elif before is not None:
            del self._best[agent]
        return best != before

    def _nearest(self, agent: str, earliest: float) -> tuple[float, str] | None:
        meetings = self._meetings.get(agent)
        counts_from = self._counts_from(agent) if meetings else None
        if not meetings or counts_from is None:
            return None
        after, since = counts_from[0], max(earliest, counts_from[1])
        best: tuple[float, str] | None = None
        for other, near in meetings.items():
            for start, _ in near:
                if start > after and start >= since:
                    if best is None or (start, other) < best:
                        best = (start, other)
                    break
        return best

    def _first(self, agent: str, near: Contacts) -> float | None:
        """Return the first beginning of `near` that counts for the agent."""
        counts_from = self._counts_from(agent)
        if counts_from is None:
            return None
        after, since = counts_from
        return next((start for start, _ in near if start > after and start >= since), None)

    def _counts_from(self, agent: str) -> tuple[float, float] | None:
        """Return after which clock value, and from which on, meetings count for the agent; None while it is idle."""
        if agent in self._idle:
            return None
        invoked = self._agents.last_call(agent)
        return invoked, invoked + self._cooldown

    handlers: ClassVar[Handlers] = {
        AgentMoved: _go,
        InvocationStarted: _invoke,
        AgentIdled: _rest,
        AgentReleased: _release,
    }


def _motion(event: AgentMoved, now: float) -> Motion | None:
    points = [point for point in (event.xy, event.destination) if point is not None]
    if event.xy is None or event.vision == 0 or any(abs(c) > _FARTHEST for point in points for c in point):
        return None
    speed = None if event.speed is None else min(event.speed, _FARTHEST)
    vision = None if event.vision is None else min(event.vision, _FARTHEST)
    return walk(now, event.xy, event.destination, speed, vision)


def _continued(before: Contacts, near: Contacts, now: float) -> Contacts:
    """Give a contact that is under way at `now` the beginning that it had before the motion changed."""
    start, end = near[0]
    if start <= now:
        for began, ended in before:
            if began <= now <= ended:
                return ((began, end), *near[1:])
    return near
