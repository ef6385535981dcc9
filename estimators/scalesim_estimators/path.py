"""Predefined activation paths: hops from the active frontier, times the pace of a hop."""

from __future__ import annotations

import math
from collections.abc import Collection
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import ClassVar

from scalesim_client.events import (
    AgentActivated,
    AgentIdled,
    AgentReleased,
    InvocationStarted,
    PathDeclared,
)
from scalesim_estimators.base import ByType, Estimate
from scalesim_estimators.roster import Roster

MOST_PATHS = 256
"""Beyond that the one that was declared longest ago is forgotten: rounds may be named anew each time."""


class PathEstimator(ByType):
    """Due when the activation that spreads over a declared graph reaches the agent.

    For an agent not yet active: the minimum over the frontier's agents f of (clock value of f's activation +
    hops from f * `hop`), where the hops lead through agents not yet active only. So the frontier moves with
    the activations: one that comes earlier or later than foreseen shifts all that follows from it. An active
    agent is due at its activation until it has been invoked (at that clock value or later), and has then no
    further estimate from that path; another round is another `path.declared`. The last 256 paths are kept.
    """

    name: ClassVar[str] = "path"
    __slots__ = ("_agents", "_idle", "_paths", "_paths_of")

    def __init__(self, agents: Roster | None = None) -> None:
        self._agents = Roster() if agents is None else agents
        self._paths: dict[str, _Path] = {}
        self._paths_of: dict[str, dict[str, _Path]] = {}
        self._idle: set[str] = set()
        self._handlers = {
            PathDeclared: self._declare,
            AgentActivated: self._activate,
            InvocationStarted: self._invoke,
            AgentIdled: self._rest,
            AgentReleased: self._release,
        }

    def estimate(self, agent: str, earliest: float = -math.inf) -> Estimate | None:
        """Return the agent's nearest due over all paths that is not before `earliest`, or None."""
        paths = self._paths_of.get(agent)
        if paths is None or agent in self._idle:
            return None
        invoked = self._agents.last_call(agent)
        best: tuple[float, str] | None = None
        for name, path in paths.items():
            due = path.due.get(agent)
            if due is None or due < earliest or (agent in path.active and invoked >= due):
                continue
            if best is None or (due, name) < best:
                best = (due, name)
        return None if best is None else Estimate(best[0], 0.8, f"path {best[1]}")

    def _declare(self, event: PathDeclared, now: float) -> Collection[str]:
        edges = list(pairwise(event.nodes)) if event.nodes is not None else event.edges or []
        path = _Path(edges, event.hop)
        touched = self._forget(event.path)
        self._paths[event.path] = path
        for agent in path.agents():
            self._paths_of.setdefault(agent, {})[event.path] = path
        if len(self._paths) > MOST_PATHS:
            touched = [*touched, *self._forget(next(iter(self._paths)))]
        return dict.fromkeys(touched)

    def _activate(self, event: AgentActivated, now: float) -> Collection[str]:
        path = self._paths.get(event.path)
        if path is None:
            return ()
        self._idle.discard(event.agent)
        if event.served:
            self._agents.call(event.agent, now)
        self._paths_of.setdefault(event.agent, {})[event.path] = path
        return path.activate(event.agent, now)

    def _invoke(self, event: InvocationStarted, now: float) -> Collection[str]:
        self._agents.call(event.agent, now)
        self._idle.discard(event.agent)
        return (event.agent,) if event.agent in self._paths_of else ()

    def _rest(self, event: AgentIdled, now: float) -> Collection[str]:
        if event.agent not in self._paths_of:
            return ()
        self._idle.add(event.agent)
        return (event.agent,)

    def _release(self, event: AgentReleased, now: float) -> Collection[str]:
        self._idle.discard(event.agent)
        self._agents.never_called(event.agent)
        return () if self._paths_of.pop(event.agent, None) is None else (event.agent,)

    def _forget(self, name: str) -> Collection[str]:
        old = self._paths.pop(name, None)
        if old is None:
            return ()
        for agent in dict.fromkeys([*old.agents(), *old.active]):
            paths = self._paths_of.get(agent)
            if paths is not None:
                paths.pop(name, None)
                if not paths:
                    del self._paths_of[agent]
        return list(old.due)


class _Path:
    """One path: its graph, its active agents, and the due of every agent that the activation can reach."""

    __slots__ = ("active", "due", "hop", "predecessors", "successors")

    def __init__(self, edges: Collection[tuple[str, str]], hop: float) -> None:
        self.hop = hop
        self.successors: dict[str, list[str]] = {}
        self.predecessors: dict[str, list[str]] = {}
        self.active: set[str] = set()
        self.due: dict[str, float] = {}
        for source, target in edges:
            self.successors.setdefault(source, []).append(target)
            self.predecessors.setdefault(target, []).append(source)

    def agents(self) -> Collection[str]:
        """Return the agents of the graph, each once."""
        return dict.fromkeys([*self.successors, *self.predecessors])

    def activate(self, agent: str, now: float) -> Collection[str]:
        """Add an agent to the frontier at `now`; return the agents whose due this changed.

        Work is bounded by the agents whose due changes and their edges. Only a first activation counts.
        """
        if agent in self.active:
            return (agent,)
        foreseen = self.due.get(agent)
        self.active.add(agent)
        self.due[agent] = now
        late = {} if foreseen is None or foreseen >= now else self._withdraw(agent, foreseen)
        heap = [(now, agent), *self._offers(late)]
        heapify(heap)
        return {agent: None, **self._relax(heap)}

    def _withdraw(self, agent: str, foreseen: float) -> dict[str, float]:
        """Remove the dues that may rest on `agent` being active at `foreseen`; return them."""
        withdrawn: dict[str, float] = {}
        stack = [(agent, foreseen)]
        while stack:
            node, due = stack.pop()
            for target in self.successors.get(node, ()):
                if target not in self.active and self.due.get(target) == due + self.hop:
                    withdrawn[target] = self.due.pop(target)
                    stack.append((target, withdrawn[target]))
        return withdrawn

    def _offers(self, agents: Collection[str]) -> list[tuple[float, str]]:
        """Return what the agents' predecessors with a due give them, as heap entries."""
        offers = []
        for agent in agents:
            given = [self.due[node] for node in self.predecessors[agent] if node in self.due]
            if given:
                self.due[agent] = min(given) + self.hop
                offers.append((self.due[agent], agent))
        return offers

    def _relax(self, heap: list[tuple[float, str]]) -> dict[str, None]:
        """Spread dues from the heap's entries as far as they improve; return the agents reached."""
        reached: dict[str, None] = {}
        while heap:
            due, node = heappop(heap)
            if due > self.due[node]:
                continue
            reached[node] = None
            due += self.hop
            for target in self.successors.get(node, ()):
                if target not in self.active and due < self.due.get(target, math.inf):
                    self.due[target] = due
                    heappush(heap, (due, target))
        return reached
