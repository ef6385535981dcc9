"""Which engine each agent lives on: where its calls are served, for there its memory is. Pure.

An agent that nobody has served yet is placed on the engine with the most room left for it, and stays there until a call
of it is seen: that engine is its home. It moves where two calls in a row are served elsewhere, or its home is gone: a
balancer that takes turns moves nothing. An engine that joins later is given agents of those that are clearly fuller.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

GONE_SECONDS = 10.0
"""How long an engine doesn't answer, at least, before its agents are placed anew: a hiccup costs nobody its memory."""
MOVING_CALLS = 2
CROWDED = 1.5
"""How many times as full as another engine one is that agents leave for that when it joins: their memory stays."""


def serves(model: str | None, *known: Collection[str]) -> bool:
    """Whether an engine that serves what is `known` serves a model: SGLang also names a LoRA `base:lora`."""
    return model is None or any(name in names for names in known for name in (model, *model.split(":", 1)))


@dataclass(frozen=True, slots=True)
class Host:
    """An engine that agents may live on: `alive`, it answers; `gone`, it hasn't for long. `models` is what it serves,
    None where that isn't known; `room` is how many tokens or slots it holds, 0 where that isn't known."""

    alive: bool
    models: frozenset[str] | None = None
    room: int = 0
    gone: bool = False

    def serves(self, model: str | None) -> bool:
        """Whether it serves a model, or may."""
        return self.models is None or serves(model, self.models)


def choose(
    model: str | None,
    home: str | None,
    hosts: Mapping[str, Host],
    load: Mapping[str, int],
    *,
    spread: bool = False,
) -> str | None:
    """Return where an agent whose home is, or was, `home` lives now: there, as long as that serves its model and is not
    gone; else on the engine with the fewest agents for its room, equals by name; None where no engine can have it. To
    `spread` agents is to let one leave a home that answers and would be `CROWDED` beside that engine even so."""
    stays = home is not None and home in hosts and not hosts[home].gone and hosts[home].serves(model)
    if home is not None and stays and not (spread and hosts[home].alive):
        return home
    able = [name for name, host in hosts.items() if host.alive and host.serves(model)]
    # Where the room of one isn't known, agents alone are counted.
    known = all(hosts[name].room for name in able)

    def full(name: str, more: int = 0) -> float:
        return (load.get(name, 0) + more) / (hosts[name].room if known else 1)

    best = min(able, key=lambda name: (full(name), name), default=None)
    if home is not None and best is not None and stays and full(home, -1) < CROWDED * full(best, 1):
        return home
    return best


class Placement:
    """The homes of all agents, and what was seen of their calls. Whoever decides calls `place`; `moved` takes in what
    was decided, here or elsewhere."""

    def __init__(self) -> None:
        self.gone_seconds = GONE_SECONDS
        self.homes: dict[str, str] = {}
        self.load: Counter[str] = Counter()
        """How many agents live on each engine."""
        self.hosts: Mapping[str, Host] = {}
        self._waiting: dict[str, str | None] = {}
        """Agents that no engine could have, each with its model."""
        self._proven: set[str] = set()
        """Agents that were seen to be served at their homes."""
        self._strayed: dict[str, tuple[str, int]] = {}
        """Agents that were served elsewhere of late: where, and how often in a row."""
        self._away: dict[str, float] = {}
        """Since when an engine hasn't answered."""
        self._there: set[str] = set()
        """The engines that have answered, and aren't gone."""
        self._joined = False

    def home(self, agent: str) -> str | None:
        """Return where an agent lives, None where it has no home yet."""
        return self.homes.get(agent)

    def proven(self, agent: str) -> bool:
        """Whether the agent has been seen to be served at its home."""
        return agent in self._proven

    def place(self, agent: str, model: str | None, *, spread: bool = False) -> str | None:
        """Return where the agent is to live from now on, None where nothing changes. `spread`: an engine has joined."""
        home = self.homes.get(agent)
        chosen = choose(model, home, self.hosts, self.load, spread=spread)
        if chosen is None:
            self._waiting[agent] = model
            return None
        return chosen if chosen != home else None

    def moved(self, agent: str, engine: str | None) -> bool:
        """An agent lives on another engine now, None for nowhere; return whether that is news."""
        self._waiting.pop(agent, None)
        before = self.homes.get(agent)
        if before == engine:
            return False
        if before is not None:
            self.load[before] -= 1
            del self.homes[agent]
        self._proven.discard(agent)
        self._strayed.pop(agent, None)
        if engine is not None:
            self.homes[agent] = engine
            self.load[engine] += 1
        return True

    def worth_telling(self, agent: str, engine: str) -> bool:
        """Whether a call of the agent that was served on an engine says more than is known."""
        if self.homes.get(agent) != engine:
            return True
        return agent not in self._proven or agent in self._strayed

    def call_seen(self, agent: str, engine: str) -> bool:
        """A call of the agent was served on an engine; return whether it ought to move there."""
        if self.homes.get(agent) == engine:
            self._proven.add(agent)
            self._strayed.pop(agent, None)
            return False
        where, times = self._strayed.get(agent, (engine, 0))
        times = times + 1 if where == engine else 1
        if agent not in self._proven or times >= MOVING_CALLS:
            return True
        self._strayed[agent] = engine, times
        return False

    def prove(self, agent: str) -> None:
        """An agent was moved to where its calls are served."""
        self._proven.add(agent)

    def look(self, hosts: Mapping[str, Host], wall: float) -> list[str]:
        """Take in the engines as they are at `wall` time; return the agents that are to be placed: those that had
        nowhere to go, and those whose home is gone."""
        unseen = {name: Host(alive=False) for name, count in self.load.items() if count and name not in hosts}
        now: dict[str, Host] = {}
        for name, host in {**hosts, **unseen}.items():
            if host.alive:
                self._away.pop(name, None)
            gone = not host.alive and wall - self._away.setdefault(name, wall) >= self.gone_seconds
            now[name] = replace(host, gone=gone)
        there = {name for name, host in now.items() if host.alive or (name in self._there and not host.gone)}
        self._joined = self._joined or any(not self.load[name] for name in there - self._there)
        self._there = there
        before, self.hosts = self.hosts, now
        if now == before:
            return []
        lost = {name for name, host in now.items() if host.gone and self.load[name]}
        homeless = [agent for agent, home in self.homes.items() if home in lost] if lost else []
        return [*self._waiting, *homeless]

    def movable(self, seconds: Callable[[str], float]) -> list[str]:
        """Return the agents that an engine which has joined since the last call, with nobody on it, may take over from
        others: those first whose calls are the farthest, in `seconds`. Their memory is the first to leave anyway."""
        joined, self._joined = self._joined, False
        return sorted(self.homes, key=seconds, reverse=True) if joined else []
