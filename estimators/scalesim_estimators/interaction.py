"""Agents that meet: due when another one comes within sight."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import ClassVar

from scalesim_client.events import AgentIdled, AgentMoved, AgentReleased, InvocationStarted
from scalesim_estimators.base import ByType, Estimate
from scalesim_estimators.grid import Strip, StripGrid
from scalesim_estimators.motion import Contacts, Motion, contacts, walk
from scalesim_estimators.roster import Roster

_FARTHEST = 1e9
"""Space units from the origin beyond which a position takes no part: rounding would exceed the grid's."""


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
    them.
    """

    name: ClassVar[str] = "interaction"
    __slots__ = ("_agents", "_best", "_cooldown", "_grid", "_idle", "_meetings", "_motions")

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
        self._handlers = {
            AgentMoved: self._go,
            InvocationStarted: self._invoke,
            AgentIdled: self._rest,
            AgentReleased: self._release,
        }

    def estimate(self, agent: str, earliest: float = -math.inf) -> Estimate | None:
        """Return the agent's nearest meeting that counts and is not before `earliest`, or None."""
        best = self._best.get(agent)
        if best is not None and best[0] < earliest:
            best = self._nearest(agent, earliest)
        return None if best is None else Estimate(best[0], 0.6, f"interaction with {best[1]}")

    def _go(self, event: AgentMoved, now: float) -> Collection[str]:
        self._idle.discard(event.agent)
        return self._move(event.agent, _motion(event, now), now)

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
        """Compare the agent's new motion with its neighbours'; None takes the agent off the ground."""
        before = self._meetings.pop(agent, {})
        changed: dict[str, None] = {}
        if motion is None:
            self._motions.pop(agent, None)
            self._grid.remove(agent)
        else:
            self._motions[agent] = motion
            self._grid.insert(agent, Strip(motion.x, motion.y, motion.to_x, motion.to_y, motion.vision))
            for other in self._grid.near(agent):
                neighbour = self._motions[other]
                near = contacts(motion, neighbour, max(motion.start, neighbour.start))
                if near:
                    self._meet(agent, other, _continued(before.pop(other, ()), near, now), now, changed)
        for other in before:
            self._part(agent, other, now, changed)
        if self._renew(agent):
            changed[agent] = None
        return changed

    def _meet(self, agent: str, other: str, near: Contacts, now: float, changed: dict[str, None]) -> None:
        self._meetings.setdefault(agent, {})[other] = near
        self._meetings.setdefault(other, {})[agent] = near
        best = self._best.get(other)
        if best is not None and best[1] == agent:
            if self._renew(other):
                changed[other] = None
            return
        meeting = self._first(other, near)
        if meeting is not None and (best is None or (meeting, agent) < best):
            self._best[other] = (meeting, agent)
            changed[other] = None
        elif best is not None and best[0] < now:
            # The nearest came to nothing: a later one holds in its place.
            changed[other] = None

    def _part(self, agent: str, other: str, now: float, changed: dict[str, None]) -> None:
        del self._meetings[other][agent]
        best = self._best.get(other)
        if best is not None and (self._renew(other) if best[1] == agent else best[0] < now):
            changed[other] = None

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
        best: tuple[float, str] | None = None
        for other, near in self._meetings.get(agent, {}).items():
            meeting = self._first(agent, near, earliest)
            if meeting is not None and (best is None or (meeting, other) < best):
                best = (meeting, other)
        return best

    def _first(self, agent: str, near: Contacts, earliest: float = -math.inf) -> float | None:
        """Return the first beginning of `near` that counts for the agent."""
        if agent in self._idle:
            return None
        invoked = self._agents.last_call(agent)
        earliest = max(earliest, invoked + self._cooldown)
        return next((start for start, _ in near if start > invoked and start >= earliest), None)


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
