"""The three classes of simulations that the estimators are made for, each alone and as simple as it can be."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

import numpy as np
from scipy.spatial import KDTree

from bench.workloads.base import Call, Cause, Step
from bench.workloads.news import News, spread_news
from bench.workloads.places import HEIGHT, PLACES, WIDTH, Point
from scalesim_client.events import ActivityStarted, AgentActivated, AgentMoved, Event

ACTIVITY_STEPS: Final = (2, 13)
STAY_STEPS: Final = (1, 6)
SPEED: Final = 4.0  # tiles per step
STRIDES: Final = 4  # per step; people look around after each
VISION: Final = 2.0  # tiles
MEAN_WAY: Final = 0.765  # to a point drawn in a square, of half its side
ITEM_EVERY: Final = 4  # steps


class Loners:
    """The workload `loners`, of the class activity: everyone acts alone for 2 to 13 steps, calls, and begins anew.

    With `active`, activities last as long as makes this share of the agents call in a step: 1 to 9 steps for 0.2.
    """

    simulation = "loners"

    def __init__(self, seed: int, count: int, agents: int, active: float | None = None) -> None:
        self.personas = _personas(self.simulation, seed, agents)
        self._seed = seed
        self._count = count
        self._lasts = ACTIVITY_STEPS if active is None else (1, round(2 / active) - 1)
        self.opening: tuple[Event, ...] = tuple(
            _acts(name, due) for name, due in self._begin(Random(seed)).items()
        )

    def steps(self) -> Iterator[Step]:
        """Run from the first step."""
        rng = Random(self._seed)
        dues = self._begin(rng)
        for now in range(1, self._count + 1):
            callers = [name for name, due in dues.items() if due == now]
            dues |= {name: now + rng.randint(*self._lasts) for name in callers}
            calls = tuple(Call(name, "activity", f"{name} at {now}") for name in callers)
            yield Step(now, (), calls, tuple(_acts(name, dues[name]) for name in callers))

    def _begin(self, rng: Random) -> dict[str, int]:
        return {name: rng.randint(1, self._lasts[1]) for name in self.personas}


@dataclass(frozen=True, slots=True)
class _Ground:
    """Where people walk, in tiles: how far off a target may be in either direction, and for how many steps people stay
    there. People begin at `spots`, or anywhere."""

    width: float = WIDTH
    height: float = HEIGHT
    reach: float = math.inf
    stay: tuple[int, int] = STAY_STEPS
    spots: tuple[Point, ...] = tuple(PLACES.values())

    @classmethod
    def busy(cls, agents: int, active: float) -> _Ground:
        """Return one where about a share `active` of the agents calls in each step, whatever their number.

        Half of these calls would be meetings: with one in two people under way, two approach each other at 0.82 of the
        speed on average, and each sweeps a strip as wide as two see. Ends of activities make up the rest, half of each
        on the way. Where many would meet, many stand beside each other already: 0.44 call where 0.5 should.
        """
        meets = active / 2
        lasts = (1 - meets) / (active - meets)
        way = max(1.0, lasts / 2)
        side = math.sqrt(agents * 2 * VISION * 0.82 * SPEED / meets)
        return cls(side, side, SPEED * (way - 0.5) / MEAN_WAY, (0, round(2 * (lasts - way))), ())

    def start(self, rng: Random) -> Point:
        if self.spots:
            return rng.choice(self.spots)
        return rng.uniform(0, self.width), rng.uniform(0, self.height)

    def target(self, x: float, y: float, rng: Random) -> Point:
        return (
            rng.uniform(max(0, x - self.reach), min(self.width, x + self.reach)),
            rng.uniform(max(0, y - self.reach), min(self.height, y + self.reach)),
        )


class _Crowd:
    """Everybody by number: on the way from `xy` to `target`, there, and done with what is to be done there at
    `until`."""

    def __init__(self, names: Iterable[str], ground: _Ground, rng: Random) -> None:
        self.names = list(names)
        self._ground = ground
        self._rng = rng
        self.xy = np.array([ground.start(rng) for _ in self.names])
        self.target = self.xy.copy()
        self.until = np.zeros(len(self.names), dtype=int)
        for who in range(len(self.names)):
            self.depart(who, 0)

    def depart(self, who: int, now: int) -> None:
        x, y = self.xy[who].tolist()
        self.target[who] = self._ground.target(x, y, self._rng)
        way = math.ceil(math.dist(self.xy[who], self.target[who]) / SPEED)
        self.until[who] = now + way + self._rng.randint(*self._ground.stay)

    def stride(self) -> None:
        way = self.target - self.xy
        left = np.hypot(way[:, 0], way[:, 1])
        self.xy += way * (SPEED / STRIDES / np.maximum(left, SPEED / STRIDES))[:, None]

    def near(self) -> set[tuple[int, int]]:
        """Return who see each other, of each pair the smaller number first."""
        pairs: set[tuple[int, int]] = KDTree(self.xy).query_pairs(VISION)
        return pairs

    def says(self, who: int) -> tuple[Event, Event]:
        name, (x, y), (to_x, to_y) = self.names[who], self.xy[who].tolist(), self.target[who].tolist()
        walk = AgentMoved(agent=name, xy=(x, y), destination=(to_x, to_y), speed=SPEED, vision=VISION)
        return _acts(name, int(self.until[who])), walk


class Walkers:
    """The workload `walkers`, of the class interaction: people on the village's map call when they are done at a
    place, to choose the next, and when two come within sight of each other; these then go on as before, and don't talk
    again until they have parted.

    With `active`, the map grows with the number of agents, and about this share of them calls in a step.
    """

    simulation = "walkers"

    def __init__(self, seed: int, count: int, agents: int, active: float | None = None) -> None:
        self.personas = _personas(self.simulation, seed, agents)
        self._seed = seed
        self._count = count
        self._ground = _Ground() if active is None else _Ground.busy(agents, active)
        crowd = self._begin(Random(seed))
        self.opening: tuple[Event, ...] = tuple(e for who in range(agents) for e in crowd.says(who))

    def steps(self) -> Iterator[Step]:
        """Run from the first step."""
        crowd = self._begin(Random(self._seed))
        near = crowd.near()
        for now in range(1, self._count + 1):
            met: dict[int, Cause] = {}
            for _ in range(STRIDES):
                crowd.stride()
                before, near = near, crowd.near()
                met.update((who, "interaction") for pair in sorted(near - before) for who in pair)
            causes: dict[int, Cause] = {int(who): "activity" for who in np.flatnonzero(crowd.until == now)}
            for who in causes:
                crowd.depart(who, now)
            causes.update(met)
            calls = tuple(
                Call(crowd.names[who], cause, f"{crowd.names[who]} at {now}") for who, cause in causes.items()
            )
            yield Step(now, (), calls, tuple(event for who in causes for event in crowd.says(who)))

    def _begin(self, rng: Random) -> _Crowd:
        return _Crowd(self.personas, self._ground, rng)


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


def _reached(item: News, now: int) -> list[str]:
    return [item.teller] if item.born == now else item.arriving(now)
