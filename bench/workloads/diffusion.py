"""The workload `diffusion`: posts that spread over a graph of followers, an independent cascade each.

Who sees a post reads it three steps after it came, or later where a step is full, and passes it on with a probability
or not: only the agent's answer tells. So what a simulation knows, and says, is the audience of each post as it is
made: who follows, hasn't seen it, and will read it when. Beyond them, and of who will post of its own, nothing is said.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from types import MappingProxyType
from typing import Final

import networkx

from bench.workloads.base import MAX_ACTIVE_SHARE, Call, Step, active_limit
from scalesim_client.events import AgentActivated, Event, PathDeclared

Followers = Mapping[str, Sequence[str]]

HOP: Final = 3  # steps
PASSING: Final = 0.25  # with four followers each a cascade reaches 17, with three 13
ACQUAINTANCES: Final = 4
FOLLOWED: Final = 3
REWIRED: Final = 0.1
READERS: Final = 0.9  # of those who may call in a step; the others' places are for who posts of its own


def small_world(agents: int, seed: int) -> Followers:
    """Return a graph (Watts and Strogatz) where each follows its four acquaintances, and they it."""
    graph = networkx.watts_strogatz_graph(agents, ACQUAINTANCES, REWIRED, seed=seed)
    return {f"a{agent}": [f"a{other}" for other in graph[agent]] for agent in graph}


def scale_free(agents: int, seed: int) -> Followers:
    """Return a graph (Barabasi and Albert) where each follows three who came before it, the more followed the likelier:
    a few have a large part of all as their audience, and most have nobody."""
    graph = networkx.barabasi_albert_graph(agents, FOLLOWED, seed=seed)
    return {f"a{agent}": [f"a{other}" for other in graph[agent] if other > agent] for agent in graph}


GRAPHS: Mapping[str, Callable[[int, int], Followers]] = MappingProxyType(
    {"small world": small_world, "scale free": scale_free}
)


@dataclass(slots=True)
class Item:
    """What spreads: who began it, and who has it in its feed or has read it."""

    source: str
    seen: set[str]


class Diffusion:
    """Posts on the graph `followers` (who hears each agent). In each step at most a share `active` of all agents call:
    those who read, and `sources` (default: all who have followers) who begin something new until enough will have
    something to read in three steps. Whoever reads passes on with probability `passing` all that it read."""

    simulation = "diffusion"

    def __init__(
        self,
        followers: Followers,
        seed: int,
        count: int,
        *,
        active: float = MAX_ACTIVE_SHARE,
        passing: float = PASSING,
        sources: Sequence[str] | None = None,
    ) -> None:
        self.personas = {name: f"{self.simulation} {seed} {name}" for name in followers}
        self.opening: tuple[Event, ...] = ()
        self._followers = followers
        self._sources = sources or [name for name, heard_by in followers.items() if heard_by]
        self._limit = active_limit(len(followers), active)
        self._passing = passing
        self._seed = seed
        self._count = count

    def steps(self) -> Iterator[Step]:
        """Run from the first step."""
        rng, feeds = Random(self._seed), _Feeds(self._followers, max(1, int(READERS * self._limit)))
        for now in range(1, self._count + 1):
            read = feeds.read(now)
            said: list[Event] = []
            for reader, items in read.items():
                if rng.random() < self._passing:
                    said += feeds.post(reader, items, now, rng)
            posted: dict[str, Item] = {}
            room = min(len(self._sources), self._limit - len(read))
            for source in rng.sample(self._sources, room):
                if feeds.full(now + HOP):
                    break
                if source not in read:
                    posted[source] = Item(source, {source})
                    said += feeds.post(source, [posted[source]], now, rng)
            calls = [Call(name, "path", self.memory(name, now, items)) for name, items in read.items()]
            calls += [Call(name, "activity", self.memory(name, now, [])) for name in posted]
            yield Step(now, feeds.reached, tuple(calls), tuple(said))

    def memory(self, name: str, now: int, items: Sequence[Item]) -> str:
        """Return what an agent sees as it reads items, or as it is about to begin one of its own."""
        return f"{name} at {now}"


@dataclass(slots=True)
class _Feed:
    """What an agent finds at one step: items, and the paths on which they came."""

    items: list[Item] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)


class _Feeds:
    """Who reads what at which step, at most `limit` agents in one: whoever finds a step full reads in the next.

    Each post is a path from who posts to those who will read it at one step. A path that they all have read lends its
    name to another.
    """

    def __init__(self, followers: Followers, limit: int) -> None:
        self.reached: tuple[Event, ...] = ()
        self._followers = followers
        self._limit = limit
        self._coming: dict[int, dict[str, _Feed]] = defaultdict(dict)
        self._vacant = HOP  # no step before it, of those to come, has room
        self._names: dict[int, list[str]] = defaultdict(list)
        self._free: list[str] = []
        self._named = 0

    def full(self, step: int) -> bool:
        """Return whether nobody else can read at a step."""
        return len(self._coming[step]) >= self._limit

    def read(self, now: int) -> dict[str, list[Item]]:
        """Return who reads what now; `reached` is then what there is to say of it."""
        feeds = self._coming.pop(now, {})
        self._free += self._names.pop(now, [])
        self.reached = tuple(
            AgentActivated(agent=name, path=path) for name, feed in feeds.items() for path in feed.paths
        )
        return {name: feed.items for name, feed in feeds.items()}

    def post(self, name: str, items: Sequence[Item], now: int, rng: Random) -> Iterator[Event]:
        """Bring items to all followers who haven't seen them, in any order; yield what there is to say of it."""
        audience: dict[int, list[_Feed]] = defaultdict(list)
        edges: dict[int, list[tuple[str, str]]] = defaultdict(list)
        for follower in rng.sample(self._followers[name], len(self._followers[name])):
            fresh = [item for item in items if follower not in item.seen]
            if fresh:
                step = self._turn(follower, now)
                feed = self._coming[step].setdefault(follower, _Feed())
                feed.items += fresh
                audience[step].append(feed)
                edges[step].append((name, follower))
                for item in fresh:
                    item.seen.add(follower)
        for step, feeds in audience.items():
            path = self._name(step)
            for feed in feeds:
                feed.paths.append(path)
            yield PathDeclared(path=path, edges=edges[step], hop=float(step - now))
            yield AgentActivated(agent=name, path=path)

    def _turn(self, follower: str, now: int) -> int:
        """Return when a post of now is read: three steps on, or in the first step after that with room."""
        soonest = now + HOP
        if follower in self._coming[soonest]:
            return soonest
        self._vacant = max(self._vacant, soonest)
        while self.full(self._vacant) and follower not in self._coming[self._vacant]:
            self._vacant += 1
        return self._vacant

    def _name(self, step: int) -> str:
        if self._free:
            name = self._free.pop()
        else:
            self._named += 1
            name = f"post-{self._named}"
        self._names[step].append(name)
        return name
