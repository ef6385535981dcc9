"""Predefined activation paths: hops from the active frontier, times the pace of a hop."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Iterable, Iterator
from heapq import heappop, heappush
from itertools import chain, islice, pairwise
from typing import ClassVar, NamedTuple

from scalesim_client.events import (
    AgentActivated,
    AgentIdled,
    AgentReleased,
    InvocationStarted,
    PathDeclared,
)
from scalesim_estimators.base import ByType, Estimate, Handlers
from scalesim_estimators.roster import Roster

MOST_PATHS = 256
"""Beyond that the one that was declared longest ago is forgotten: rounds may be named anew each time."""

STEPS_PER_EVENT = 256
STEPS_PER_TURN = 10_000
"""Edges that are looked at for one event, and in one turn."""


class PathEstimator(ByType):
    """Due when the activation that spreads over a declared graph reaches the agent.

    For an agent not yet active: the minimum over the frontier's agents f of (clock value of f's activation +
    hops from f * `hop`), where the hops lead through agents not yet active only. So the frontier moves with
    the activations: one that comes earlier or later than foreseen shifts all that follows from it. An active
    agent is due at its activation until it has been invoked (at that clock value or later), and has then no
    further estimate from that path; another round is another `path.declared`. The last 256 paths are kept.

    Work is bounded: an event looks at no more than 256 edges. What a long path, or an activation that many others hang
    on, leaves to do is done in the order in which it came, with the next events and by `go_on`, and the activation
    spreads to the nearest first. Until then what was foreseen holds; who is activated is due at once. Activations that
    wait meanwhile spread together.
    """

    name: ClassVar[str] = "path"
    __slots__ = ("_agents", "_idle", "_paths", "_paths_of", "_released", "_work")

    def __init__(self, agents: Roster | None = None) -> None:
        self._agents = Roster() if agents is None else agents
        self._paths: dict[str, _Path] = {}
        self._paths_of: dict[str, dict[str, _Path]] = {}
        self._idle: set[str] = set()
        self._released: dict[_Path, set[str]] = {}
        """Per path that is being read, who was released since it was declared."""
        self._work: deque[Iterator[str | None]] = deque()
        """What is left to do, a step an edge: each yields the agent whose due it has changed, if any."""

    def estimate(self, agent: str, earliest: float = -math.inf) -> Estimate | None:
        """Return the agent's nearest due over all paths that is not before `earliest`, or None."""
        paths = self._paths_of.get(agent)
        if paths is None or agent in self._idle:
            return None
        invoked = self._agents.last_call(agent)
        best: tuple[float, str] | None = None
        for name, path in paths.items():
            due, active = path.told(agent)
            if due is None or due < earliest or (active and invoked >= due):
                continue
            if best is None or (due, name) < best:
                best = (due, name)
        return None if best is None else Estimate(best[0], 0.8, f"path {best[1]}")

    @property
    def behind(self) -> bool:
        """Whether `go_on` has anything to do."""
        return bool(self._work)

    def go_on(self, steps: int = STEPS_PER_TURN) -> Collection[str]:
        """Do so many steps more of what is left to do; return the agents whose estimate this may have changed."""
        changed: dict[str, None] = {}
        while self._work and steps:
            done = list(islice(self._work[0], steps))
            changed.update((agent, None) for agent in done if agent is not None)
            steps -= len(done)
            if steps:
                self._work.popleft()
        return changed

    def _declare(self, event: PathDeclared, now: float) -> Collection[str]:
        edges = pairwise(event.nodes) if event.nodes is not None else event.edges or []
        self._forget(event.path)
        path = self._paths[event.path] = _Path(event.hop)
        self._released[path] = set()
        self._work.append(self._build(event.path, path, edges))
        if len(self._paths) > MOST_PATHS:
            self._forget(next(iter(self._paths)))
        return self.go_on(STEPS_PER_EVENT)

    def _build(self, name: str, path: _Path, edges: Iterable[tuple[str, str]]) -> Iterator[None]:
        released = self._released[path]
        for source, target in edges:
            if self._paths.get(name) is not path:
                break
            path.join(source, target)
            for agent in (source, target):
                if agent not in released:
                    self._paths_of.setdefault(agent, {})[name] = path
            yield None
        del self._released[path]

    def _forget(self, name: str) -> None:
        old = self._paths.pop(name, None)
        if old is not None:
            self._work.append(self._leave(name, old))

    def _leave(self, name: str, old: _Path) -> Iterator[str | None]:
        for agent in chain(old.successors, old.predecessors, old.active):
            paths = self._paths_of.get(agent, {})
            if paths.get(name) is old:
                del paths[name]
                if not paths:
                    del self._paths_of[agent]
            yield agent if agent in old.due else None

    def _activate(self, event: AgentActivated, now: float) -> Collection[str]:
        path, agent = self._paths.get(event.path), event.agent
        if path is None:
            return ()
        self._idle.discard(agent)
        if event.served:
            self._agents.call(agent, now)
        self._paths_of.setdefault(agent, {})[event.path] = path
        if not path.told(agent).active:
            if not path.waiting:
                self._work.append(path.spread())
            path.waiting[agent] = now
        return dict.fromkeys((agent, *self.go_on(STEPS_PER_EVENT)))

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
        for released in self._released.values():
            released.add(event.agent)
        return () if self._paths_of.pop(event.agent, None) is None else (event.agent,)

    handlers: ClassVar[Handlers] = {
        PathDeclared: _declare,
        AgentActivated: _activate,
        InvocationStarted: _invoke,
        AgentIdled: _rest,
        AgentReleased: _release,
    }


class _Told(NamedTuple):
    """When an agent is due by a path, None for never, and whether it is active there."""

    due: float | None
    active: bool


class _Path:
    """One path: its graph, its active agents, and the due of every agent that the activation can reach. `waiting` are
    the agents whose activation has yet to spread, each with its clock value."""

    __slots__ = ("active", "due", "hop", "predecessors", "successors", "waiting")

    def __init__(self, hop: float) -> None:
        self.hop = hop
        self.successors: dict[str, list[str]] = {}
        self.predecessors: dict[str, list[str]] = {}
        self.active: set[str] = set()
        self.due: dict[str, float] = {}
        self.waiting: dict[str, float] = {}

    def join(self, source: str, target: str) -> None:
        """Take in an edge."""
        self.successors.setdefault(source, []).append(target)
        self.predecessors.setdefault(target, []).append(source)

    def told(self, agent: str) -> _Told:
        """Return what the path tells of an agent."""
        if agent in self.waiting:
            return _Told(self.waiting[agent], True)
        return _Told(self.due.get(agent), agent in self.active)

    def spread(self) -> Iterator[str | None]:
        """Add those who wait to the frontier, step by step; yield the agents whose due this changed.

        The whole is bounded by the agents whose due changes and their edges, a step by an edge.
        """
        heap: list[tuple[float, str]] = []
        late: list[tuple[str, float]] = []
        while self.waiting:
            agent, now = self.waiting.popitem()
            foreseen = self.due.get(agent, math.inf)
            if foreseen < now:
                late.append((agent, foreseen))
            self.active.add(agent)
            self.due[agent] = now
            heappush(heap, (now, agent))
            yield agent
        withdrawn: list[str] = []
        yield from self._withdraw(late, withdrawn)
        yield from self._offer(withdrawn, heap)
        yield from self._relax(heap)

    def _withdraw(self, late: list[tuple[str, float]], withdrawn: list[str]) -> Iterator[None]:
        """Remove the dues that may rest on those who are `late` being active when they were foreseen."""
        while late:
            node, due = late.pop()
            for target in self.successors.get(node, ()):
                if target not in self.active and self.due.get(target) == due + self.hop:
                    withdrawn.append(target)
                    late.append((target, self.due.pop(target)))
                yield None

    def _offer(self, withdrawn: Iterable[str], heap: list[tuple[float, str]]) -> Iterator[None]:
        """Put on the heap what the predecessors with a due give those who have none any more."""
        for agent in withdrawn:
            given = math.inf
            for node in self.predecessors[agent]:
                given = min(given, self.due.get(node, math.inf))
                yield None
            if given < math.inf:
                self.due[agent] = given + self.hop
                heappush(heap, (self.due[agent], agent))

    def _relax(self, heap: list[tuple[float, str]]) -> Iterator[str | None]:
        """Spread dues from the heap's entries as far as they improve; yield the agents reached."""
        while heap:
            due, node = heappop(heap)
            if due > self.due[node]:
                continue
            yield node
            due += self.hop
            for target in self.successors.get(node, ()):
                if target not in self.active and due < self.due.get(target, math.inf):
                    self.due[target] = due
                    heappush(heap, (due, target))
                yield None
