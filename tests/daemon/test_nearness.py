from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest

from scalesim_adapters.base import Cleared, EngineInfo, Removed, Stored, Tier
from scalesim_client.events import (
    ActivityStarted,
    AgentIdled,
    AgentReleased,
    Event,
    InvocationFinished,
    InvocationStarted,
    MemoryBound,
    StepAdvanced,
)
from scalesim_daemon.gate import Closed, Opened, Said, Stream
from scalesim_daemon.plan import BlockCache
from scalesim_daemon.plan_blocks import plan_blocks
from scalesim_daemon.population import Population
from scalesim_daemon.snapshot import Ranking, block_cache, follow
from scalesim_daemon.view import EngineView
from scalesim_daemon.wishes import Drawn, Wishes

BLOCK = 2
INFO = EngineInfo("vllm", "0", "1", ("base",), {}, block_size=BLOCK, device_blocks=24)
NAMES = [f"a{number}" for number in range(12)]


class Scene:
    """Two sources of one simulation, each with its clock and pace, and an engine that comes and goes as it likes."""

    def __init__(self, seed: int) -> None:
        self.rng = Random(seed)
        self.population = Population()
        self.streams = [Stream(source, "sim", 1, "step") for source in ("one", "two")]
        self.nows = [0.0, 0.0]
        self.wall = 0.0
        self.pins: set[str] = set()
        self.view = EngineView("engine", quiet_share=0.1)
        self.view.probed(INFO)
        self.view.happened(Cleared())
        for stream in self.streams:
            self.population.apply([Opened(stream)], 0.0)

    def say(self, place: int, *events: Event) -> None:
        self.wall += self.rng.random()
        self.population.apply([Said(self.streams[place], events)], self.wall)
        changes = self.population.take_changes()
        for key in changes.unbound:
            self.view.forget(key)
        for key in changes.bound:
            memory = self.population.agents[key].memory
            assert memory is not None
            self.view.bound(key, memory)

    def something_happens(self) -> None:
        place, name = self.rng.randrange(2), self.rng.choice(NAMES)
        match self.rng.randrange(9):
            case 0 | 1:
                self.nows[place] += self.rng.choice([1.0, 1.0, 3.0])
                self.say(place, StepAdvanced(now=self.nows[place]))
            case 2 | 3:
                self.say(place, ActivityStarted(agent=name, for_=self.rng.randrange(6)))
            case 4:
                self.say(place, InvocationStarted(agent=name))
            case 5:
                self.say(place, InvocationFinished(agent=name))
            case 6:
                tokens = [NAMES.index(name)] * (BLOCK * self.rng.randrange(1, 4))
                self.say(place, MemoryBound(agent=name, token_ids=[99, 99, *tokens]))
            case 7:
                self.say(place, self.rng.choice([AgentIdled, AgentReleased])(agent=name))
            case 8:
                self.engine_moves(name)

    def engine_moves(self, name: str) -> None:
        number = NAMES.index(name)
        tree = self.view.tree
        assert tree is not None
        if tree.resident_blocks(f"sim/{name}") > 1:
            self.view.happened(Removed((f"{number}".encode(),), Tier.DEVICE))
            return
        if not tree.resident:
            self.view.happened(Stored((b"shared",), None, (99, 99), BLOCK, Tier.DEVICE))
        here = (number,) * BLOCK
        self.view.happened(Stored((f"{number}".encode(),), b"shared", here, BLOCK, Tier.DEVICE))

    def cache(self) -> BlockCache:
        ranking = Ranking(self.population, self.pins, self.wall)
        cache = block_cache(self.view, ranking, lambda key: not key.endswith("11"), 4)
        assert cache is not None
        return cache


def assert_as_if_all_were_looked_at(cache: BlockCache) -> None:
    everyone = Wishes(cache.wishes)
    assert isinstance(cache.wishes, Wishes)
    assert list(cache.wishes.lacking()) == list(everyone.lacking())
    places = [cache.wishes.place(wish.agent) for wish in everyone]
    assert places == sorted(places)
    assert cache.wishes.nearest == everyone.nearest
    assert [cache.wishes.of(wish.agent) for wish in everyone] == list(everyone)
    waiting = [wish.seconds for wish in everyone if wish.seconds >= 0 and not wish.held]
    assert cache.reserve == (4 * waiting.count(min(waiting)) if waiting else 0)
    assert plan_blocks(cache) == plan_blocks(replace(cache, wishes=tuple(everyone), lots=tuple(cache.lots)))


@pytest.mark.parametrize("seed", range(40))
def test_the_order_that_is_kept_up_is_the_one_that_a_look_at_all_agents_gives(seed: int) -> None:
    scene = Scene(seed)
    for number in range(120):
        scene.something_happens()
        if number % 30 == 17:
            scene.pins = {f"sim/{scene.rng.choice(NAMES)}"}
        if scene.rng.random() < 0.5:
            assert_as_if_all_were_looked_at(scene.cache())
    scene.population.apply([Closed(scene.streams[0])], scene.wall)
    scene.population.take_changes()
    assert_as_if_all_were_looked_at(scene.cache())


def test_what_changes_while_nothing_is_planned_does_not_pile_up() -> None:
    scene = Scene(0)
    scene.view.known = False
    for number in range(50):
        name = f"passing{number}"
        scene.say(0, MemoryBound(agent=name, token_ids=[99, 99, 0, 0]), ActivityStarted(agent=name, for_=1))
        scene.say(0, AgentReleased(agent=name))
        order = follow(scene.view, scene.population)
    assert order is not None and not order._watch
    assert scene.view.tree is not None and not scene.view.tree.take_changed()
    scene.view.tree = None
    assert follow(scene.view, scene.population) is None


def test_a_source_that_has_gone_leaves_no_order_behind() -> None:
    scene = Scene(0)
    scene.say(0, MemoryBound(agent="a0", token_ids=[99, 99, 0, 0]), ActivityStarted(agent="a0", for_=1))
    assert [wish.agent for wish in scene.cache().wishes] == ["sim/a0"]
    scene.population.apply([Closed(scene.streams[0])], 1.0)
    for key in scene.population.take_changes().unbound:
        scene.view.forget(key)
    cache = scene.cache()
    assert (list(cache.wishes), cache.wishes.nearest if isinstance(cache.wishes, Wishes) else 0) == (
        [],
        math.inf,
    )


def test_elements_are_drawn_when_they_are_asked_for_and_kept() -> None:
    drawn: list[int] = []

    def source(numbers: Sequence[int]) -> Drawn[int]:
        return Drawn(drawn.append(number) or number for number in numbers)

    some = source([1, 2, 3])
    assert (next(iter(some)), drawn) == (1, [1])
    assert list(zip(some, some, strict=True)) == [(1, 1), (2, 2), (3, 3)]
    assert drawn == [1, 2, 3]
    assert some == (1, 2, 3) == source([1, 2, 3])
    assert (len(source([4, 5])), source([4, 5])[1], source([]) == ()) == (2, 5, True)
