"""The newest state that a source has said, kept as the shortest log that says it again. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgpack

from scalesim_client.codec import pack_event
from scalesim_client.events import (
    ActivityStarted,
    AgentActivated,
    AgentEvent,
    AgentIdled,
    AgentRegistered,
    AgentReleased,
    AgentWoken,
    Event,
    InvocationFinished,
    InvocationStarted,
    MemoryBound,
    MemoryUnbound,
    PathDeclared,
    PlanDeclared,
    StepAdvanced,
)

Key = tuple[str | None, ...]

_MEMORY = MemoryBound.type
_TIMELESS = frozenset((AgentRegistered.type, MemoryBound.type, MemoryUnbound.type))
_OUTLIVES_CLOCK = _TIMELESS | {InvocationStarted.type}
_ENDED_BY_INVOCATION = (ActivityStarted.type, AgentWoken.type, AgentIdled.type)
_PLAN: Key = (PlanDeclared.type,)


class NewestState:
    """Takes in events and gives back those that still hold, in the order in which they were said.

    An event whose meaning depends on when it was said is returned with `now`, the clock value of then, beside
    its own fields, and an activity's `for` as `until`. Memory is bounded by agents, paths and invocations
    that run. Invocations without `request` count as one per agent.
    """

    def __init__(self) -> None:
        self.now: float | None = None
        self._said: dict[Key, bytes] = {}
        self._owned: dict[Key, set[Key]] = {}
        self._plan: PlanDeclared | None = None
        self._planned_at: float | None = None
        self._planned: set[str] = set()

    def apply(self, event: Event) -> None:
        """Take in one event; raises `ValueError` where it has no place in msgpack."""
        match event:
            case StepAdvanced(now=now):
                self._advance(now)
            case AgentReleased(agent=agent):
                self._drop_owned(("agent", agent))
                self._planned.discard(agent)
            case AgentEvent():
                self._apply_to_agent(event)
            case PathDeclared(path=path):
                self._drop_owned(("path", path))
                self._put((event.type, path), event)
            case PlanDeclared(agents=agents):
                chances = event.probabilities
                copied = None if chances is None else list(chances)
                self._plan = replace(event, agents=list(agents), probabilities=copied)
                self._planned_at = self.now
                self._planned = set(agents)
                self._put(_PLAN, event)

    def snapshot(self) -> list[bytes]:
        """Return the events that still hold, each packed."""
        if self._plan is not None:
            rest = _rest(self._plan, self._planned)
            self._said[_PLAN] = pack_event(_stamped(rest, self._planned_at))
        return list(self._said.values())

    def _apply_to_agent(self, event: AgentEvent) -> None:
        owner = ("agent", event.agent)
        if owner not in self._owned:
            self._put((AgentRegistered.type, event.agent), AgentRegistered(agent=event.agent), owner)
        match event:
            case AgentRegistered():
                pass
            case InvocationStarted(agent=agent, request=request):
                for ended in _ENDED_BY_INVOCATION:
                    self._said.pop((ended, agent), None)
                self._planned.discard(agent)
                self._serve(owner)
                self._put((event.type, agent, request), event, owner)
            case InvocationFinished(agent=agent, request=request):
                self._said.pop((InvocationStarted.type, agent, request), None)
                self._owned[owner].discard((InvocationStarted.type, agent, request))
            case MemoryBound(agent=agent) | MemoryUnbound(agent=agent):
                self._put((_MEMORY, agent), event, owner)
            case AgentActivated(agent=agent, path=path):
                key = (event.type, agent, path)
                # Only the first time that a path reaches an agent counts.
                if key not in self._said:
                    self._put(key, event, owner, ("path", path))
            case _:
                if isinstance(event, AgentIdled):
                    self._planned.discard(event.agent)
                self._put((event.type, event.agent), event, owner)

    def _advance(self, now: float) -> None:
        if self.now is not None and now < self.now:
            # The simulation starts over: what it foresaw is void, what the agents are is not.
            self._said = {key: said for key, said in self._said.items() if key[0] in _OUTLIVES_CLOCK}
            self._plan, self._planned = None, set()
        self.now = now

    def _put(self, key: Key, event: Event, *owners: Key) -> None:
        packed = pack_event(_stamped(event, self.now))
        self._said.pop(key, None)
        self._said[key] = packed
        for owner in owners:
            self._owned.setdefault(owner, set()).add(key)

    def _serve(self, agent: Key) -> None:
        for key in self._owned[agent]:
            if key[0] == AgentActivated.type and key in self._said:
                self._said[key] = pack_event(msgpack.unpackb(self._said[key]) | {"served": True})

    def _drop_owned(self, owner: Key) -> None:
        for key in self._owned.pop(owner, ()):
            self._said.pop(key, None)


def _stamped(event: Event, now: float | None) -> dict[str, Any]:
    wire = event.to_wire()
    if now is not None and event.type not in _TIMELESS:
        wire["now"] = now
        if isinstance(event, ActivityStarted) and event.for_ is not None:
            wire["until"] = now + wire.pop("for")
    return wire


def _rest(plan: PlanDeclared, agents: set[str]) -> PlanDeclared:
    """Return the plan of those `agents` that are left of it; a plain order stays whole, as its places are its times."""
    if plan.at is None and plan.probabilities is None:
        return plan
    kept = [index for index, agent in enumerate(plan.agents) if agent in agents]
    return replace(
        plan,
        agents=[plan.agents[index] for index in kept],
        probabilities=plan.probabilities and [plan.probabilities[index] for index in kept],
    )
