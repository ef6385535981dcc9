"""A simulation whose agents come, call, move and go, and whose names never come again. Pure: it says what is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple
from zlib import crc32

from scalesim_client.events import SCHEMA_VERSION

Event = Mapping[str, Any]

SHARED_TOKENS = 32
OWN_TOKENS = 64
ASKS_ENGINE = 0.05
"""The share of agents whose calls are requests to an engine. Those of all others begin and end in one message: who
hears them can't tell that no engine was asked."""
LONGEST_ACTIVITY = 20
GROUND = 300.0
"""The side of the square that they walk on, in space units; they see 4 units far."""
MOVES = 0.15
CALLS = 0.08
"""Of its agents so many move and call in a step, if they are due."""
PLAN_EVERY = 10
PATH_EVERY = 40


def tokens_of(simulation: str, agent: str) -> list[int]:
    """Return the prefix that an agent binds: what all of its simulation share, then its own."""
    shared, own = crc32(simulation.encode()), crc32(f"{simulation}/{agent}".encode())
    return [
        *(1000 + (shared + place * 7919) % 29_000 for place in range(SHARED_TOKENS)),
        *(1000 + (own + place * 104_729) % 29_000 for place in range(OWN_TOKENS)),
    ]


class Step(NamedTuple):
    """What is said in one step: `first` at its beginning, `rest` in its course; and who calls an engine now."""

    first: Sequence[Event]
    calling: Sequence[str]
    rest: Sequence[Event]


@dataclass(slots=True)
class _Agent:
    name: str
    asks_engine: bool
    bound: Event
    doing: Event = field(default_factory=dict)
    due: int = 0


@dataclass(slots=True)
class Simulation:
    """One source's part of a simulation: `agents` of them at a time, named by `names`, which all simulations share."""

    name: str
    source: str
    agents: int
    names: Iterator[int]
    random: Random
    remembers: bool = True
    """Whether some of its agents bind prompts and call an engine."""
    now: int = 0
    gone: int = 0
    _alive: dict[str, _Agent] = field(default_factory=dict)
    _calling: Counter[str] = field(default_factory=Counter)

    def __len__(self) -> int:
        """Return how many agents there are."""
        return len(self._alive)

    def opening(self) -> list[Event]:
        """Return what the source says first."""
        opened = {"type": "stream.opened", "simulation": self.name, "source": self.source, "incarnation": 1}
        come = [event for _ in range(self.agents) for event in self._come()]
        return [
            {**opened, "clock": "step", "schema_version": SCHEMA_VERSION},
            {"type": "step.advanced", "now": 0.0},
            *come,
        ]

    def step(self, events: int, churn: int) -> Step:
        """Go on by a step in which about `events` events are said, and `churn` agents go and others come."""
        self.now += 1
        first: list[Event] = [{"type": "step.advanced", "now": float(self.now)}]
        for name in self.random.sample(sorted(self._alive), min(churn, len(self._alive))):
            del self._alive[name]
            self.gone += 1
            first += [{"type": "agent.released", "agent": name}, *self._come()]
        calling: list[str] = []
        due = [agent for agent in self._alive.values() if agent.due <= self.now]
        for agent in due[: max(1, round(CALLS * self.agents))]:
            first.append({"type": "invocation.started", "agent": agent.name})
            if agent.asks_engine:
                self._calling[agent.name] += 1
                calling.append(agent.name)
                agent.due = self.now + LONGEST_ACTIVITY
            else:
                first.append({"type": "invocation.finished", "agent": agent.name})
                first.append(self._act(agent))
        rest = self._declared() if self.remembers else []
        alive = list(self._alive.values())
        rest += [self._walk(agent) for agent in self._some(alive, round(MOVES * self.agents))]
        rest += [self._renew(agent) for agent in self._some(alive, events - len(first) - len(rest))]
        return Step(first, calling, rest)

    def called(self, name: str) -> list[Event]:
        """An agent's request to an engine has ended. Who has gone meanwhile is spoken of no more."""
        self._calling -= Counter([name])
        agent = self._alive.get(name)
        return [] if agent is None else [{"type": "invocation.finished", "agent": name}, self._act(agent)]

    def snapshot(self) -> list[Event]:
        """Return the newest state of all, as a publisher says it every half minute."""
        state = [event for agent in self._alive.values() for event in (agent.bound, agent.doing)]
        state += [
            {"type": "invocation.started", "agent": name}
            for name in self._calling.elements()
            if name in self._alive
        ]
        return [{"type": "state.snapshot", "part": 0, "of": 1, "now": float(self.now), "events": state}]

    def _come(self) -> list[Event]:
        name = f"agent{next(self.names):07d}"
        asks = self.remembers and self.random.random() < ASKS_ENGINE
        memory: Event = {"token_ids": tokens_of(self.name, name)} if asks else {"model": "base"}
        bound = {"type": "memory.bound", "agent": name, **memory}
        self._alive[name] = agent = _Agent(name, asks, bound)
        return [{"type": "agent.registered", "agent": name}, bound, self._act(agent)]

    def _act(self, agent: _Agent) -> Event:
        return self._until(agent, self.now + self.random.randrange(2, LONGEST_ACTIVITY))

    def _renew(self, agent: _Agent) -> Event:
        """What the agent does ends a little sooner or later than was said."""
        return self._until(agent, max(self.now, agent.due + self.random.randrange(-3, 3)))

    def _until(self, agent: _Agent, due: int) -> Event:
        agent.due = due
        agent.doing = {"type": "agent.activity_started", "agent": agent.name, "until": float(due)}
        return agent.doing

    def _walk(self, agent: _Agent) -> Event:
        x, y, to_x, to_y = (GROUND * self.random.random() for _ in range(4))
        moved = {"type": "agent.moved", "agent": agent.name, "xy": (x, y), "destination": (to_x, to_y)}
        return {**moved, "speed": 4.0, "vision": 4.0}

    def _declared(self) -> list[Event]:
        """Return what else a simulation says now and then."""
        alive = list(self._alive)
        woken, idled = self.random.choice(alive), self.random.choice(alive)
        said: list[Event] = [
            {"type": "agent.woken", "agent": woken},
            {"type": "agent.idled", "agent": idled},
        ]
        if self.now % PLAN_EVERY == 0:
            said.append({"type": "plan.declared", "agents": alive[:5]})
        if self.now % PATH_EVERY == 1:
            said.append({"type": "path.declared", "path": "news", "nodes": alive[-20:]})
            said.append({"type": "agent.activated", "path": "news", "agent": alive[-20:][0]})
        return said

    def _some(self, agents: Sequence[_Agent], count: int) -> Iterator[_Agent]:
        return (agents[int(self.random.random() * len(agents))] for _ in range(max(0, count)))
