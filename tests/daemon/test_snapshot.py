from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalesim_adapters.base import Capability, Cleared, EngineInfo, FeedLost, MemoryKind
from scalesim_client.events import (
    ActivityStarted,
    AgentRegistered,
    Event,
    InvocationFinished,
    InvocationStarted,
    MemoryBound,
    StepAdvanced,
)
from scalesim_daemon.blocks import PARTLY_FILLED
from scalesim_daemon.gate import Opened, Said, Stream
from scalesim_daemon.plan import Action, BlockCache, Lot
from scalesim_daemon.plan_blocks import plan_blocks
from scalesim_daemon.plan_demotions import plan_demotions
from scalesim_daemon.population import Population
from scalesim_daemon.snapshot import PINNED_SECONDS, Ranking, block_cache, lora_cache
from scalesim_daemon.view import EngineView
from tests.daemon.reference_pool import Pool, Request
from tests.daemon.test_plan_blocks import carry_out, look, prefixes

STREAM = Stream("src", "sim", 1, "step")
INFO = EngineInfo("vllm", "0", "1", ("base",), {}, block_size=2)


class World:
    """A pool, the view of it, and the agents that a simulation tells of."""

    def __init__(self, blocks: int, agents: dict[str, list[int]]) -> None:
        self.pool = Pool(blocks)
        self.agents = {f"sim/{name}": prefix for name, prefix in agents.items()}
        self.population = Population()
        self.population.apply([Opened(STREAM)], 0.0)
        self.view = EngineView("engine", quiet_share=0.1)
        self.view.probed(replace(INFO, device_blocks=blocks))
        self.view.happened(Cleared())
        self.pins: set[str] = set()
        for name, prefix in agents.items():
            self.say(AgentRegistered(agent=name), MemoryBound(agent=name, token_ids=prefix))

    def say(self, *events: Event) -> None:
        """Let the daemon hear events, as its loop does."""
        self.population.apply([Said(STREAM, events)], 0.0)
        changes = self.population.take_changes()
        for key in changes.bound:
            memory = self.population.agents[key].memory
            assert memory is not None
            self.view.bound(key, memory)
        for key in changes.started:
            self.view.started(self.population.agents[key])
        for key in changes.finished:
            self.view.finished(key, None)

    def hear(self) -> None:
        for event in self.pool.take_events():
            self.view.happened(event)

    def call(self, name: str, fresh: Sequence[int]) -> Request:
        self.say(InvocationStarted(agent=name))
        request = self.pool.begin(f"sim/{name}", [*self.agents[f"sim/{name}"], *fresh])
        self.hear()
        return request

    def answer(self, request: Request) -> None:
        self.pool.finish(request)
        assert request.agent is not None
        self.say(InvocationFinished(agent=request.agent.partition("/")[2]))

    @property
    def ranking(self) -> Ranking:
        return Ranking(self.population, self.pins, 0.0)

    def snapshot(self, *, chunk_tokens: int = 8) -> BlockCache:
        cache = block_cache(self.view, self.ranking, lambda _: True, chunk_tokens)
        assert cache is not None
        return cache

    def truth(self, cache: BlockCache) -> BlockCache:
        seconds = {agent: self.ranking.seconds(agent) for agent in self.agents}
        held = [agent for agent in self.agents if self.ranking.held(agent)]
        return look(self.pool, self.agents, seconds, cache.chunk, cache.reserve, held)


def merged(lots: Sequence[Lot]) -> list[tuple[tuple[str, ...], float, int]]:
    return [
        (*key, sum(lot.blocks for lot in same))
        for key, same in groupby(lots, lambda lot: (lot.agents, lot.seconds))
    ]


def assert_true(world: World) -> BlockCache:
    """The daemon's picture is the one that somebody would take who knows everything, but for what estimates are worth:
    here they are right."""
    cache = world.snapshot()
    truth = world.truth(cache)
    assert merged(cache.lots) == merged(truth.lots)
    assert cache.free == truth.free
    cache = replace(cache, wishes=tuple(replace(wish, chance=1.0) for wish in cache.wishes))
    assert set(cache.wishes) == set(truth.wishes)
    return cache


calls = st.tuples(st.integers(0, 5), st.integers(1, 5), st.integers(0, 6))


@settings(max_examples=150, deadline=None)
@given(
    st.integers(14, 40),
    st.lists(st.integers(0, 3), min_size=1, max_size=2),
    st.lists(st.integers(1, 4), min_size=6, max_size=6),
    st.lists(st.lists(calls, max_size=4), max_size=8),
)
def test_the_daemon_sees_the_truth_and_keeps_what_is_near(
    blocks: int, shared: list[int], private: list[int], steps: list[list[tuple[int, int, int]]]
) -> None:
    """Step by step: agents call, the engine is idle, and plans are carried out until nothing is to do."""
    world = World(blocks, prefixes(shared, private))
    world.say(StepAdvanced(now=0.0))
    fresh = 10**6
    for now, callers in enumerate(steps, 1):
        for index, tokens, until_next in callers:
            fresh += tokens
            name = f"agent{index}"
            world.answer(world.call(name, range(fresh - tokens, fresh)))
            world.say(ActivityStarted(agent=name, until=float(now + until_next)))
        for _ in range(100):
            plan = plan_blocks(assert_true(world))
            if not plan:
                break
            tree = world.view.tree
            assert tree is not None
            tree.started(plan[0].key)
            seconds = {agent: world.ranking.seconds(agent) for agent in world.agents}
            carry_out(world.pool, world.agents, seconds, plan[:1])
            world.hear()
            tree.released(plan[0].key)
        else:
            raise AssertionError("planning has no end")
        assert tree_is_right(world)
        world.say(StepAdvanced(now=float(now)))


def tree_is_right(world: World) -> bool:
    return world.view.tree is not None and world.view.tree.unpredicted == 0


def test_an_agent_that_calls_is_held_and_its_blocks_are_no_lots() -> None:
    world = World(20, {"a": [1, 2, 3, 4], "b": [5, 6]})
    world.say(StepAdvanced(now=0.0), ActivityStarted(agent="a", for_=3))
    world.answer(world.call("a", [7]))
    world.say(ActivityStarted(agent="a", for_=3))
    request = world.call("a", [7])
    world.say(ActivityStarted(agent="a", for_=3))
    cache = world.snapshot()
    assert cache.lots == ()
    assert [(wish.agent, wish.held) for wish in cache.wishes] == [("sim/a", True)]
    assert plan_blocks(cache) == []
    world.answer(request)
    assert world.snapshot().lots == (Lot(2, ("sim/a",), 3.0),)


def test_who_is_served_is_not_demoted_though_nothing_is_foreseen_of_them() -> None:
    world = World(20, {"a": [1, 2, 3, 4], "b": [5, 6, 7, 8]})
    world.view.probed(replace(INFO, device_blocks=20, capabilities={MemoryKind.PREFIX_KV: Capability.DEMOTE}))
    for name in "ab":
        world.pool.serve(f"sim/{name}", [*world.agents[f"sim/{name}"], 9])
    world.hear()
    world.say(InvocationStarted(agent="a"))
    assert [(step.action, step.key) for step in plan_demotions(world.snapshot())] == [
        (Action.DEMOTE, "sim/b")
    ]
    world.say(InvocationFinished(agent="a"))
    assert [step.key for step in plan_demotions(world.snapshot())] == ["sim/b"], "a has called just now"


def test_what_is_left_of_a_held_agent_is_as_near_as_can_be() -> None:
    world = World(20, {"a": [1, 2, 3, 4]})
    world.pool.serve("sim/a", [1, 2, 3, 4, 5])
    world.say(InvocationStarted(agent="a"))
    world.hear()
    world.pool.serve(None, [9, 9, 9])
    tree = world.view.tree
    assert tree is not None
    tree.released("sim/a")
    assert [lot.seconds for lot in world.snapshot().lots] == [PINNED_SECONDS]


def test_pinned_agents_are_nearer_than_any() -> None:
    world = World(20, {"a": [1, 2], "b": [3, 4]})
    world.pins.add("sim/b")
    world.answer(world.call("b", [7]))
    world.say(StepAdvanced(now=0.0), ActivityStarted(agent="a", for_=0))
    cache = world.snapshot()
    assert [(wish.agent, wish.seconds) for wish in cache.wishes] == [("sim/b", -1.0), ("sim/a", 0.0)]
    assert cache.lots == (Lot(1, ("sim/b",), -1.0),)


def test_agents_at_home_elsewhere_are_no_wishes_and_far() -> None:
    world = World(20, {"a": [1, 2], "b": [3, 4]})
    world.answer(world.call("a", [7]))
    world.say(StepAdvanced(now=0.0), ActivityStarted(agent="a", for_=1), ActivityStarted(agent="b", for_=1))
    cache = block_cache(world.view, world.ranking, lambda agent: agent == "sim/b", 8)
    assert cache is not None
    assert [wish.agent for wish in cache.wishes] == ["sim/b"]
    assert cache.lots == (Lot(1, ("sim/a",), math.inf),)


def test_equally_near_agents_go_by_recency() -> None:
    world = World(20, {"a": [1, 2], "b": [3, 4], "c": [5, 6]})
    for name in ("c", "a"):
        world.answer(world.call(name, [7]))
    world.say(StepAdvanced(now=0.0), *(ActivityStarted(agent=name, for_=1) for name in "abc"))
    assert [wish.agent for wish in world.snapshot().wishes] == ["sim/a", "sim/c", "sim/b"]


def test_room_is_reserved_for_what_the_next_callers_add() -> None:
    world = World(50, {"a": [1, 2], "b": [3, 4], "c": [5, 6]})
    assert world.snapshot().reserve == 0
    world.view.blocks_per_invocation = 2.5
    world.say(StepAdvanced(now=0.0), *(ActivityStarted(agent=name, for_=1) for name in "ab"))
    world.say(ActivityStarted(agent="c", for_=2))
    assert world.snapshot().reserve == 5
    world.pins.add("sim/a")
    assert world.snapshot().reserve == 3


def test_what_invocations_add_is_learned() -> None:
    world = World(50, {"a": [1, 2]})
    for start in range(0, 600, 6):
        world.answer(world.call("a", range(100 + start, 105 + start)))
    assert world.view.blocks_per_invocation == pytest.approx(2 + PARTLY_FILLED, abs=0.1)


def test_nothing_is_planned_on_what_is_not_known() -> None:
    world = World(2, {"a": [1, 2]})
    world.view.happened(FeedLost("a gap"))
    assert block_cache(world.view, world.ranking, lambda _: True, 8) is None
    world.view.happened(Cleared())
    assert block_cache(world.view, world.ranking, lambda _: True, 8) is not None
    world.view.happened(FeedLost("a gap"))
    world.pool.serve(None, [1, 2, 3, 4])
    world.hear()
    assert block_cache(world.view, world.ranking, lambda _: True, 8) is not None
    assert block_cache(EngineView("new", quiet_share=0.1), world.ranking, lambda _: True, 8) is None


def test_a_chunk_is_at_least_a_block() -> None:
    assert World(2, {}).snapshot(chunk_tokens=1).chunk == 1
    assert World(2, {}).snapshot(chunk_tokens=9).chunk == 4


def test_the_picture_of_the_loras() -> None:
    world = World(20, {})
    world.say(
        StepAdvanced(now=0.0),
        *(
            MemoryBound(agent=agent, lora=f"/{name}", lora_name=name)
            for agent, name in (("a", "x"), ("b", "x"), ("c", "y"))
        ),
        MemoryBound(agent="d", lora="/z", lora_name="z"),
        ActivityStarted(agent="a", for_=5),
        ActivityStarted(agent="b", for_=2),
    )
    loras = world.view.loras
    loras.registered["x"] = "/x"
    loras.device_places, loras.host_places = 1, 2
    for name in ("x", "y", "x", "y", "q"):
        loras.used(name)
    world.say(InvocationStarted(agent="c"))
    links = {"x": (Path("/x"), 7, True), "y": (Path("/y"), 8, False)}
    cache = lora_cache(world.view, world.population, world.ranking, lambda _: True, lambda _: True, links, 99)
    assert (cache.device, cache.host, cache.device_places, cache.host_places) == (("q",), ("y", "q"), 1, 2)
    assert cache.staging_free == 99
    x, y = cache.wishes
    assert (x.name, x.seconds, x.bytes, x.staged, x.registered, x.held) == ("x", 2.0, 7, True, True, False)
    assert (y.name, y.seconds, y.bytes, y.staged, y.registered, y.held) == (
        "y",
        math.inf,
        8,
        False,
        False,
        True,
    )


def test_files_are_as_near_as_the_nearest_who_reads_them() -> None:
    world = World(20, {})
    world.say(
        StepAdvanced(now=0.0),
        *(MemoryBound(agent=agent, lora="/x", lora_name="x") for agent in ("a", "b", "c")),
        *(ActivityStarted(agent=agent, for_=due) for agent, due in (("a", 1), ("b", 2), ("c", 5))),
    )
    links = {"x": (Path("/x"), 7, False)}

    def picture(*homes: str) -> tuple[float, float | None]:
        at_home = {f"sim/{agent}" for agent in homes}.__contains__
        reads = {"sim/b", "sim/c"}.__contains__
        (x,) = lora_cache(world.view, world.population, world.ranking, at_home, reads, links, 99).wishes
        return x.seconds, x.files_seconds

    assert picture("c") == (5.0, 2.0)
    assert picture() == (math.inf, 2.0)


def test_what_leaves_the_host_leaves_its_slot() -> None:
    loras = World(2, {}).view.loras
    loras.device_places, loras.host_places = 2, 2
    for name in ("x", "y", "x", "z"):
        loras.used(name)
    assert (list(loras.device), list(loras.host)) == (["x", "z"], ["x", "z"])


def test_blocks_of_another_size_are_not_mixed_with_the_old_ones() -> None:
    view = EngineView("engine", quiet_share=0.1)
    for incarnation, size in (("1", 2), ("2", 4)):
        view.probed(EngineInfo("vllm", "0", incarnation, ("base",), {}, block_size=size, device_blocks=8))
        assert view.tree is not None
        assert view.tree.block_size == size


def test_nothing_is_planned_before_the_feed_is_heard() -> None:
    view = EngineView("engine", quiet_share=0.1)
    view.probed(EngineInfo("vllm", "0", "1", ("base",), {}, block_size=2, device_blocks=8))
    assert not view.known
    view.happened(Cleared())
    assert view.known


def test_a_wish_says_what_the_estimates_of_its_stream_are_worth() -> None:
    """The simulation says that b calls at the next step; a does, every time, as recency says."""
    world = World(20, {"a": [1, 2], "b": [3, 4]})
    for now in range(12):
        caller = "a" if now < 11 else "b"
        world.say(StepAdvanced(now=float(now)))
        world.answer(world.call(caller, [9]))
        world.say(ActivityStarted(agent="a", for_=30.0), ActivityStarted(agent="b", for_=1.0))
    assert world.population.qualities()["src"].chance() == world.ranking.foreseen("sim/b")[1] < 0.5
    assert {wish.chance for wish in world.snapshot().wishes} == {world.ranking.foreseen("sim/b")[1]}
    world.pins.add("sim/b")
    assert world.ranking.foreseen("sim/b") == (PINNED_SECONDS, 1.0)
    other = Stream("other", "sim", 1, "step")
    world.population.apply([Opened(other), Said(other, (ActivityStarted(agent="d", for_=2.0),))], 0.0)
    assert world.ranking.foreseen("sim/d") == (2.0, 1.0)
    assert world.ranking.foreseen("sim/never heard of") == (math.inf, 1.0)
