"""A live village on Mesa: 25 people who work, walk, meet and pass on news, on a clock of steps.

An agent calls its LLM when what it does ends, when it comes to talk with someone whom it meets, and when news
reaches it. It knows how long an activity takes when it starts it, as generative agents do; meetings and news
can only be foreseen from positions and speeds and from who tells whom. Nothing depends on an LLM's answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

import mesa
from mesa.space import ContinuousSpace

from bench.workloads.base import Call, Cause, Step, active_limit
from bench.workloads.news import News, spread_news
from bench.workloads.observation import ACTIVITIES, Activity, observation
from bench.workloads.persona_text import first_name, persona_text
from bench.workloads.personas import VILLAGERS, Persona
from bench.workloads.places import HEIGHT, PLACES, WIDTH, Point
from scalesim_client.events import ActivityStarted, AgentActivated, AgentMoved, Event

SPEED: Final = 8.0  # tiles per step
STRIDES: Final = 4  # per step; people look around after each
VISION: Final = 3.0  # tiles
QUIET: Final = 7  # steps after a talk in which an agent starts no other
STAY_PUT: Final = 0.5  # share of activities that continue at the same place
WAITING: Final = Activity("waits to be asked", 1, 1, sociable=False)


class Villager(mesa.Agent):
    """One person: where it is and goes, what it does until when, and when it last talked."""

    model: VillageModel
    pos: Point

    def __init__(self, model: VillageModel, persona: Persona) -> None:
        super().__init__(model)
        self.persona = persona
        self.name = first_name(persona.name).lower()
        self.place = persona.work
        self.target: Point | None = None
        self.activity = ACTIVITIES[0]
        self.until = 0
        self.talked = -QUIET

    @property
    def open(self) -> bool:
        """Whether it would talk to someone now."""
        walks_or_idles = self.target is not None or self.activity.sociable
        return walks_or_idles and self.model.steps - self.talked >= QUIET

    def walk(self) -> None:
        """Go one stride towards the target."""
        if self.target is None:
            return
        left = math.dist(self.pos, self.target)
        if left <= SPEED / STRIDES:
            self.model.space.move_agent(self, self.target)
            self.target = None
            return
        share = SPEED / STRIDES / left
        x, y = (here + (there - here) * share for here, there in zip(self.pos, self.target, strict=True))
        self.model.space.move_agent(self, (x, y))

    def begin(self, now: int) -> None:
        """Choose what to do next, and where; the way there is part of how long it takes."""
        rng = self.random
        self.activity = rng.choice(ACTIVITIES)
        way = 0
        if rng.random() > STAY_PUT:
            self.place = rng.choice([place for place in PLACES if place != self.place])
            self.target = self.model.spot(self.place)
            way = math.ceil(math.dist(self.pos, self.target) / SPEED)
        self.until = now + way + rng.randint(self.activity.shortest, self.activity.longest)

    def acts(self, now: int) -> ActivityStarted:
        """Return the event that tells what it does and how long still."""
        return ActivityStarted(
            agent=self.name, for_=float(max(1, self.until - now)), activity=self.activity.text
        )

    def stands(self) -> AgentMoved:
        """Return the event that tells where it is, where it goes, and how far it looks for company."""
        return AgentMoved(
            agent=self.name,
            xy=self.pos,
            place=None if self.target else self.place,
            destination=self.target,
            speed=SPEED if self.target else 0.0,
            vision=VISION if self.open else 0.0,
        )


class VillageModel(mesa.Model):
    """The running village. `advance` makes one step."""

    def __init__(self, seed: int, people: Sequence[Persona], news: list[News]) -> None:
        super().__init__(seed=seed)
        self.space = ContinuousSpace(WIDTH, HEIGHT, torus=False)
        self.villagers = {v.name: v for v in (Villager(self, persona) for persona in people)}
        self.news = news
        self.waiting: dict[str, Cause] = {}  # oldest first
        self.company: dict[str, str] = {}
        for number, villager in enumerate(self.villagers.values()):
            self.space.place_agent(villager, self.spot(villager.place))
            villager.activity = self.random.choice(ACTIVITIES)
            villager.until = 1 + number * 6 // len(people)

    def spot(self, place: str) -> Point:
        """Return a spot at a place, a few tiles around its centre."""
        x, y = PLACES[place]
        return x + self.random.uniform(-4, 4), y + self.random.uniform(-4, 4)

    def say_opening(self) -> tuple[Event, ...]:
        """Return what the village says before its first step."""
        people = self.villagers.values()
        return (
            *(item.declaration() for item in self.news),
            *(v.acts(0) for v in people),
            *(v.stands() for v in people),
        )

    def advance(self) -> Step:
        """Make one step: people walk, hear news, meet, and finish; who has waited longest calls first."""
        was = {v.name: v.stands() for v in self.villagers.values()}
        self.step()
        now = int(self.steps)
        told = self._hear(now)
        for _ in range(STRIDES):
            for villager in self.villagers.values():
                villager.walk()
            self._meet(now)
        self._finish(now)
        moved = [
            v.stands()
            for v in self.villagers.values()
            if v.stands() != was[v.name] and self.waiting.get(v.name) != "interaction"
        ]
        callers = list(self.waiting)[: active_limit(len(self.villagers))]
        calls = tuple(self._call(self.villagers[name], self.waiting.pop(name), now) for name in callers)
        return Step(now=now, before=(*moved, *told), calls=calls, after=tuple(self._go_on(callers, now)))

    def _hear(self, now: int) -> list[Event]:
        told: list[Event] = []
        for item in self.news:
            teller = self.villagers[item.teller]
            first = [item.teller] if not item.reached and now >= item.born and teller.until <= now else []
            for name in first + item.arriving(now):
                item.reach(name, now)
                told.append(AgentActivated(agent=name, path=item.name))
                self.waiting.setdefault(name, "activity" if first else "path")
        return told

    def _meet(self, now: int) -> None:
        for villager in self.villagers.values():
            others = [
                other
                for other in self.space.get_neighbors(villager.pos, VISION, include_center=True)
                if other is not villager and other.open and other.name not in self.waiting
            ]
            if others and villager.open and villager.name not in self.waiting:
                other = min(others, key=lambda o: (math.dist(o.pos, villager.pos), o.name))
                for one, two in ((villager, other), (other, villager)):
                    one.talked = now
                    self.company[one.name] = two.persona.name
                    self.waiting[one.name] = "interaction"

    def _finish(self, now: int) -> None:
        for villager in self.villagers.values():
            if villager.until <= now:
                self.waiting.setdefault(villager.name, "activity")

    def _call(self, villager: Villager, cause: Cause, now: int) -> Call:
        company = self.company.pop(villager.name, None)
        nearby = self.space.get_neighbors(villager.pos, 3 * VISION, include_center=True)
        seen = [(o.persona, o.activity) for o in nearby if o is not villager]
        memory = observation(
            villager.persona, now, villager.place, villager.activity, seen, company, self.random
        )
        return Call(villager.name, cause, memory)

    def _go_on(self, callers: list[str], now: int) -> Iterator[Event]:
        for name in callers:
            villager = self.villagers[name]
            if villager.until <= now + 1:
                villager.begin(now)
            yield villager.acts(now)
            yield villager.stands()
        for name in self.waiting:
            yield ActivityStarted(agent=name, for_=1.0, activity=WAITING.text)


class Village:
    """The workload `village`: `count` steps of the village that `seed` gives, with the first `people` of its 25."""

    simulation = "village"

    def __init__(self, seed: int, count: int, people: int = len(VILLAGERS)) -> None:
        self._people = VILLAGERS[:people]
        self.personas = {first_name(p.name).lower(): persona_text(p, seed) for p in self._people}
        self._seed = seed
        self._count = count
        self.opening = self._model().say_opening()

    def steps(self) -> Iterator[Step]:
        """Run the village from its first step."""
        model = self._model()
        for _ in range(self._count):
            yield model.advance()

    def _model(self) -> VillageModel:
        agents = list(self.personas)
        news = spread_news(agents, items=1 + self._count // 6, listeners=5, every=6, rng=Random(self._seed))
        return VillageModel(self._seed, self._people, news)
