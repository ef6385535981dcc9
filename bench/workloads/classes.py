"""The three classes of simulations that the estimators are made for, each alone and as small as it can be."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from random import Random
from typing import Final

from bench.workloads.base import Call, Cause, Step
from bench.workloads.news import News, spread_news
from bench.workloads.places import HEIGHT, PLACES, WIDTH, Point
from scalesim_client.events import ActivityStarted, AgentActivated, AgentMoved, Event

ACTIVITY_STEPS: Final = (2, 13)
STAY_STEPS: Final = (1, 6)
SPEED: Final = 4.0  # tiles per step
STRIDES: Final = 4  # per step; people look around after each
VISION: Final = 2.0  # tiles
ITEM_EVERY: Final = 4  # steps


class Loners:
    """The workload `loners`, of the class activity: everyone acts alone for 2 to 13 steps, calls, and begins anew."""

    simulation = "loners"

    def __init__(self, seed: int, count: int, agents: int) -> None:
        self.personas = _personas(self.simulation, seed, agents)
        self._seed = seed
        self._count = count
        self.opening: tuple[Event, ...] = tuple(
            _acts(name, due) for name, due in self._begin(Random(seed)).items()
        )

    def steps(self) -> Iterator[Step]:
        """Run from the first step."""
        rng = Random(self._seed)
        dues = self._begin(rng)
        for now in range(1, self._count + 1):
            callers = [name for name, due in dues.items() if due == now]
            dues |= {name: now + rng.randint(*ACTIVITY_STEPS) for name in callers}
            calls = tuple(Call(name, "activity", f"{name} at {now}") for name in callers)
            yield Step(now, (), calls, tuple(_acts(name, dues[name]) for name in callers))

    def _begin(self, rng: Random) -> dict[str, int]:
        return {name: rng.randint(1, ACTIVITY_STEPS[1]) for name in self.personas}


@dataclass(slots=True)
class _Walker:
    """Someone on the way to `target`, who is there, and done with what is to be done there, at `until`."""

    name: str
    xy: Point
    target: Point = (0.0, 0.0)
    until: int = 0

    def depart(self, now: int, rng: Random) -> None:
        self.target = rng.uniform(0, WIDTH), rng.uniform(0, HEIGHT)
        way = math.ceil(math.dist(self.xy, self.target) / SPEED)
        self.until = now + way + rng.randint(*STAY_STEPS)

    def stride(self) -> None:
        left = math.dist(self.xy, self.target)
        share = 1.0 if left <= SPEED / STRIDES else SPEED / STRIDES / left
        x, y = (here + (there - here) * share for here, there in zip(self.xy, self.target, strict=True))
        self.xy = x, y

    def says(self) -> tuple[Event, Event]:
        walk = AgentMoved(agent=self.name, xy=self.xy, destination=self.target, speed=SPEED, vision=VISION)
        return _acts(self.name, self.until), walk


class Walkers:
    """The workload `walkers`, of the class interaction: people on the village's map call when they are done at a
    place, to choose the next, and when two come within sight of each other; these then go on as before, and don't talk
    again until they have parted."""

    simulation = "walkers"

    def __init__(self, seed: int, count: int, agents: int) -> None:
        self.personas = _personas(self.simulation, seed, agents)
        self._seed = seed
        self._count = count
        self.opening: tuple[Event, ...] = tuple(
            event for walker in self._begin(Random(seed)) for event in walker.says()
        )

    def steps(self) -> Iterator[Step]:
        """Run from the first step."""
        rng = Random(self._seed)
        walkers = self._begin(rng)
        near = _near(walkers)
        for now in range(1, self._count + 1):
            met: dict[str, Cause] = {}
            for _ in range(STRIDES):
                for walker in walkers:
                    walker.stride()
                before, near = near, _near(walkers)
                met.update((name, "interaction") for pair in near if pair not in before for name in pair)
            done = [walker for walker in walkers if walker.until == now]
            for walker in done:
                walker.depart(now, rng)
            causes: dict[str, Cause] = {walker.name: "activity" for walker in done}
            causes.update(met)
            calls = tuple(Call(name, cause, f"{name} at {now}") for name, cause in causes.items())
            said = {walker.name: walker.says() for walker in walkers}
            yield Step(now, (), calls, tuple(event for name in causes for event in said[name]))

    def _begin(self, rng: Random) -> list[_Walker]:
        walkers = [_Walker(name, rng.choice(list(PLACES.values()))) for name in self.personas]
        for walker in walkers:
            walker.depart(0, rng)
        return walkers


class Relay:
    """The workload `relay`, of the class path: every four steps an item begins that everybody hands on along a graph of
    its own, so that several are under way; whom it reaches calls."""

    simulation = "relay"

    def __init__(self, seed: int, count: int, agents: int) -> None:
        self.personas = _personas(self.simulation, seed, agents)
        self.opening: tuple[Event, ...] = ()
        self._seed = seed
        self._count = count

    def steps(self) -> Iterator[Step]:
        """Run from the first step. An item's graph is declared when it begins."""
        rng, agents = Random(self._seed), list(self.personas)
        items = spread_news(agents, 1 + self._count // ITEM_EVERY, len(agents) - 1, ITEM_EVERY, rng)
        for now in range(1, self._count + 1):
            said: list[Event] = []
            callers: dict[str, None] = {}
            for item in items:
                if item.born == now:
                    said.append(item.declaration())
                for name in _reached(item, now):
                    item.reach(name, now)
                    said.append(AgentActivated(agent=name, path=item.name))
                    callers[name] = None
            yield Step(
                now, tuple(said), tuple(Call(name, "path", f"{name} at {now}") for name in callers), ()
            )


def _personas(simulation: str, seed: int, agents: int) -> dict[str, str]:
    return {f"a{number}": f"{simulation} {seed} a{number}" for number in range(agents)}


def _acts(name: str, until: int) -> ActivityStarted:
    return ActivityStarted(agent=name, until=float(until))


def _near(walkers: list[_Walker]) -> list[tuple[str, str]]:
    return [
        (one.name, two.name) for one, two in combinations(walkers, 2) if math.dist(one.xy, two.xy) <= VISION
    ]


def _reached(item: News, now: int) -> list[str]:
    return [item.teller] if item.born == now else item.arriving(now)
