from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scalesim_daemon.plan import Action, BlockCache, Lot, Step, Wish
from scalesim_daemon.plan_blocks import MAX_STEPS, plan_blocks
from scalesim_daemon.snapshot import PINNED_SECONDS
from tests.daemon.reference_pool import Chain, Pool

FILLER = -1
Prefixes = Mapping[str, Sequence[int]]
Seconds = Mapping[str, float]


def prefixes(shared: Sequence[int], private: Sequence[int]) -> dict[str, list[int]]:
    """Agents whose prefixes begin with so many shared blocks and go on with so many of their own."""
    return {
        f"agent{index}": [
            *range(2 * shared[index % len(shared)]),
            *range(1000 * (index + 1), 1000 * (index + 1) + 2 * own),
        ]
        for index, own in enumerate(private)
    }


def owners(pool: Pool, agents: Prefixes) -> dict[Chain, list[str]]:
    owned: dict[Chain, list[str]] = {}
    for agent, prefix in agents.items():
        for chain in pool.chains(prefix):
            owned.setdefault(chain, []).append(agent)
    return owned


def look(
    pool: Pool, agents: Prefixes, seconds: Seconds, chunk: int, reserve: int = 0, held: Sequence[str] = ()
) -> BlockCache:
    """Take the snapshot that a daemon which knows everything would take of an idle engine."""
    owned = owners(pool, agents)
    nearness = {**seconds, **dict.fromkeys(held, PINNED_SECONDS)}
    cached = [
        tuple(owned.get(slot.chain, ())) if pool.is_missed(slot) else ()
        for slot in pool.queue
        if slot.chain is not None
    ]
    lots = [
        Lot(
            len(list(same)),
            tuple(sorted(users, key=lambda user: (nearness[user], user))),
            min((nearness[user] for user in users), default=math.inf),
        )
        for users, same in groupby(cached)
    ]
    wishes = [
        Wish(
            agent, seconds[agent], len(pool.chains(prefix)), pool.resident(pool.chains(prefix)), agent in held
        )
        for agent, prefix in agents.items()
        if seconds[agent] < math.inf
    ]
    wishes.sort(key=lambda wish: (wish.seconds, wish.agent))
    free = sum(slot.chain is None for slot in pool.queue)
    return BlockCache(free, tuple(lots), tuple(wishes), chunk, reserve)


def carry_out(
    pool: Pool, agents: Prefixes, seconds: Seconds, steps: Sequence[Step], held: Sequence[str] = ()
) -> None:
    """Carry out a plan step by step, and hold each step to what it promises."""
    owned = owners(pool, agents)
    nearness = {**seconds, **dict.fromkeys(held, PINNED_SECONDS)}
    for step in steps:
        chains = pool.chains(agents[step.key])
        before = set(pool.found)
        if step.action is Action.TOUCH:
            assert step.stop == pool.resident(chains)
        else:
            assert 0 <= step.start <= pool.resident(chains)
        assert 0 <= step.start < step.stop <= len(chains)
        prompt = [*agents[step.key][: step.stop * pool.block_size], FILLER]
        assert pool.can_begin(prompt)
        pool.serve(step.key, prompt)
        assert sum(len(copies) for copies in pool.found.values()) <= pool.capacity
        assert pool.resident(chains) >= step.stop
        losers = {agent for chain in before - set(pool.found) for agent in owned.get(chain, ())}
        assert all(nearness[loser] > step.seconds for loser in losers), (step, losers)
        assert losers <= set(step.victims)
        assert not losers & set(held)
        assert step.seconds == seconds[step.key] < math.inf
        assert step.reason


distances = st.lists(
    st.sampled_from([PINNED_SECONDS, 0.0, 1.0, 1.0, 2.0, 3.0, 5.0, 8.0, math.inf]), min_size=1, max_size=9
)


@st.composite
def scenes(draw: st.DrawFn) -> tuple[Pool, dict[str, list[int]], dict[str, float], list[str]]:
    """An idle engine that has served requests of agents and of others, and what is known of the agents."""
    seconds = draw(distances)
    private = draw(st.lists(st.integers(1, 6), min_size=len(seconds), max_size=len(seconds)))
    agents = prefixes(draw(st.lists(st.integers(0, 3), min_size=1, max_size=2)), private)
    pool = Pool(draw(st.integers(8, 40)))
    calls = draw(st.lists(st.tuples(st.sampled_from([*agents, "other"]), st.integers(0, 5)), max_size=25))
    for number, (caller, fresh) in enumerate(calls):
        prompt = [*agents.get(caller, []), *range(10**6 + 100 * number, 10**6 + 100 * number + fresh)]
        if prompt and pool.can_begin(prompt):
            pool.serve(caller, prompt)
    held = [agent for agent in agents if draw(st.integers(0, 9)) == 0]
    return pool, agents, dict(zip(agents, seconds, strict=True)), held


@settings(max_examples=400, deadline=None)
@given(scenes(), st.integers(1, 6), st.integers(0, 12), st.sampled_from([0.0, 0.4]))
def test_every_step_keeps_what_is_nearer(
    scene: tuple[Pool, dict[str, list[int]], dict[str, float], list[str]],
    chunk: int,
    reserve: int,
    block_seconds: float,
) -> None:
    pool, agents, seconds, held = scene
    cache = replace(look(pool, agents, seconds, chunk, reserve, held), block_seconds=block_seconds)
    steps = plan_blocks(cache)
    assert steps == plan_blocks(cache)
    assert len(steps) <= MAX_STEPS
    assert all(step.stop - step.start <= chunk for step in steps if step.action is Action.LOAD)
    carry_out(pool, agents, seconds, steps, held)


@settings(max_examples=200, deadline=None)
@given(scenes(), st.integers(1, 6), st.integers(0, 12), st.sampled_from([0.0, 0.4]))
def test_plans_come_to_an_end(
    scene: tuple[Pool, dict[str, list[int]], dict[str, float], list[str]],
    chunk: int,
    reserve: int,
    block_seconds: float,
) -> None:
    pool, agents, seconds, held = scene
    for _ in range(2 + len(agents)):
        cache = look(pool, agents, seconds, chunk, reserve, held)
        steps = plan_blocks(replace(cache, block_seconds=block_seconds))
        if not steps:
            return
        carry_out(pool, agents, seconds, steps, held)
    raise AssertionError(f"still planned after {2 + len(agents)} rounds: {steps}")


@settings(max_examples=200, deadline=None)
@given(scenes(), st.integers(1, 6))
def test_one_step_at_a_time_comes_to_the_same_end(
    scene: tuple[Pool, dict[str, list[int]], dict[str, float], list[str]], chunk: int
) -> None:
    """A driver carries out the first step only, and then there is a new snapshot."""
    pool, agents, seconds, _ = scene
    for _ in range(100):
        steps = plan_blocks(look(pool, agents, seconds, chunk))
        if not steps:
            return
        carry_out(pool, agents, seconds, steps[:1])
    raise AssertionError("no end after 100 steps")


@settings(max_examples=200, deadline=None)
@given(scenes(), st.integers(1, 6))
def test_the_nearest_gets_all_of_its_prefix_where_there_is_room(
    scene: tuple[Pool, dict[str, list[int]], dict[str, float], list[str]], chunk: int
) -> None:
    pool, agents, seconds, _ = scene
    nearest = min(agents, key=lambda agent: (seconds[agent], agent))
    assume(seconds[nearest] < math.inf and list(seconds.values()).count(seconds[nearest]) == 1)
    for _ in range(100):
        steps = plan_blocks(look(pool, agents, seconds, chunk))
        if not steps:
            break
        carry_out(pool, agents, seconds, steps[:1])
    chains = pool.chains(agents[nearest])
    assert pool.resident(chains) == len(chains) or len(chains) >= pool.capacity


def test_nothing_is_to_do_where_the_near_are_there() -> None:
    cache = BlockCache(
        0, (Lot(9, (), math.inf), Lot(4, ("a",), 1.0)), (Wish("a", 1.0, 4, 4),), chunk=8, reserve=5
    )
    assert plan_blocks(cache) == []


def test_agents_never_due_are_not_loaded() -> None:
    assert plan_blocks(BlockCache(100, (), (Wish("a", math.inf, 4, 0),), chunk=8)) == []


def test_agents_that_call_now_are_left_to_their_own_request() -> None:
    assert plan_blocks(BlockCache(100, (), (Wish("a", 0.0, 4, 0, held=True),), chunk=8)) == []


def test_a_load_is_cut_into_chunks_and_names_its_victims() -> None:
    cache = BlockCache(
        2,
        (Lot(3, ("late", "later"), 7.0), Lot(8, (), math.inf)),
        (Wish("a", 1.0, 5, 1), Wish("late", 7.0, 3, 3)),
        2,
    )
    first, second = plan_blocks(cache)
    assert [(step.start, step.stop, step.victims) for step in (first, second)] == [
        (1, 3, ("late", "later")),
        (3, 5, ("late", "later")),
    ]


def test_what_is_nearer_and_would_go_first_is_touched() -> None:
    cache = BlockCache(
        1,
        (Lot(2, ("b",), 3.0), Lot(2, ("a",), 2.0), Lot(9, (), math.inf)),
        (Wish("a", 2.0, 2, 2), Wish("b", 3.0, 2, 2), Wish("c", 4.0, 3, 0)),
        chunk=8,
    )
    assert [(step.action, step.key) for step in plan_blocks(cache)] == [
        (Action.TOUCH, "b"),
        (Action.TOUCH, "a"),
        (Action.LOAD, "c"),
    ]
    assert plan_blocks(replace(cache, free=0)) == []  # a touch would push out what the other is to save


@pytest.mark.parametrize(("garbage", "loads"), [(4, False), (5, True)])
def test_room_for_the_next_invocations_is_left_alone(garbage: int, loads: bool) -> None:
    wishes = (Wish("soon", 1.0, 2, 2), Wish("then", 2.0, 2, 0))
    cache = BlockCache(0, (Lot(garbage, (), math.inf), Lot(2, ("soon",), 1.0)), wishes, chunk=8, reserve=2)
    assert bool(plan_blocks(cache)) is loads


def test_an_agent_that_cannot_be_touched_ends_the_plan() -> None:
    """Its blocks are near, but its requests go elsewhere or its prefix has lost its head."""
    cache = BlockCache(1, (Lot(2, ("b",), 0.5), Lot(9, (), math.inf)), (Wish("a", 1.0, 4, 0),), chunk=8)
    assert plan_blocks(cache) == []


def test_an_agent_that_lost_blocks_to_a_step_waits_for_the_next_plan() -> None:
    """How much it still has is then known: neither its wish nor a touch may rest on the old count."""
    lots = (Lot(3, ("b",), 2.0), Lot(9, (), math.inf))
    a, b, c = Wish("a", 1.0, 2, 0), Wish("b", 2.0, 3, 3), Wish("c", 3.0, 2, 0)
    for wishes in ((a, b, c), (a, replace(b, blocks=5))):
        assert [step.key for step in plan_blocks(BlockCache(1, lots, wishes, 8))] == ["a"]


@pytest.mark.parametrize(("far", "steps"), [(9.0, 3), (3.0, 2)])
def test_what_agents_that_begin_alike_leave_of_a_victim_is_not_taken_unsaid(far: float, steps: int) -> None:
    """The second load finds the first one's shared block, so that the third meets what it left of the victim:
    farther, it is named; as near as the third, it is spared."""
    agents = {"a": [0, 0, 1, 1], "b": [0, 0, 2, 2], "c": [3, 3], "far": [4, 4, 5, 5]}
    seconds = {"a": 1.0, "b": 2.0, "c": 3.0, "far": far}
    pool = Pool(8)
    pool.serve("far", agents["far"])
    pool.serve(None, [6, 6, 7, 7, 8, 8])
    plan = plan_blocks(look(pool, agents, seconds, 8))
    assert [step.key for step in plan] == ["a", "b", "c"][:steps]
    carry_out(pool, agents, seconds, plan)


def test_a_long_plan_is_cut() -> None:
    wishes = tuple(Wish(f"agent{index}", float(index), 10, 0) for index in range(50))
    assert len(plan_blocks(BlockCache(10_000, (), wishes, chunk=1))) == MAX_STEPS


@pytest.mark.parametrize(("block_seconds", "most"), [(0.5, 2), (0.0, 50)])
def test_dues_that_jitter_by_less_than_the_exchange_takes_move_nothing_back_and_forth(
    block_seconds: float, most: int
) -> None:
    """Two agents of four blocks each, which take two seconds to load; there is room for one and a half."""
    rng, pool, agents, loads = Random(1), Pool(8), prefixes([0], [4, 4]), 0
    for _ in range(50):
        seconds = {agent: 5 + rng.uniform(-0.9, 0.9) for agent in agents}
        steps = plan_blocks(replace(look(pool, agents, seconds, 8), block_seconds=block_seconds))
        carry_out(pool, agents, seconds, steps)
        loads += sum(step.action is Action.LOAD for step in steps)
    assert loads <= most
    assert (loads > 10) is (block_seconds == 0)


@pytest.mark.parametrize(
    ("chance", "price", "free", "loads"),
    [
        (0.4, 0.0, 9, True),  # into free blocks
        (0.4, 0.0, 0, False),
        (0.6, 0.0, 0, True),
        (0.6, 0.5, 0, False),  # where others use the engine
        (0.9, 0.5, 0, True),
    ],
)
def test_a_load_is_planned_where_it_is_likely_to_pay(
    chance: float, price: float, free: int, loads: bool
) -> None:
    near = Wish("near", 1.0, 8, 0, chance=chance)
    for agents in (("far",), ()):
        lots = (Lot(30, agents, 60.0 if agents else math.inf),)
        cache = BlockCache(free, lots, (near,), chunk=8, price=price)
        assert [step.key for step in plan_blocks(cache)] == (["near"] if loads else [])
    sure = Wish("sure", 2.0, 8, 0)
    assert plan_blocks(replace(cache, wishes=(near, sure)))[-1].key == "sure"
