from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from scalesim_daemon.plan import Action, BlockCache, Lot, Step, Wish
from scalesim_daemon.plan_demotions import plan_demotions

NAMES = "abcdef"


def cache_of(
    wishes: list[Wish], *, capacity: int, demoted: str = "", unforeseen: str = "", reserve: int = 0
) -> BlockCache:
    """Each wish's blocks that are there form a lot of its own, as do four of each agent that nobody foresees."""
    lots = [Lot(wish.resident, (wish.agent,), wish.seconds) for wish in wishes if wish.resident]
    lots += [Lot(4, (agent,), math.inf) for agent in unforeseen]
    return BlockCache(0, tuple(lots), tuple(wishes), 4, reserve, 1, capacity, frozenset(demoted))


def kinds(steps: list[Step]) -> list[tuple[Action, str]]:
    return [(step.action, step.key) for step in steps]


def test_who_is_not_among_the_nearest_that_fit_is_demoted_the_farthest_first() -> None:
    wishes = [Wish(name, float(number), 4, 4) for number, name in enumerate("abcd")]
    cache = cache_of(wishes, capacity=9, unforeseen="e")
    assert kinds(plan_demotions(cache)) == [(Action.DEMOTE, name) for name in "edc"]
    assert kinds(plan_demotions(replace(cache, reserve=2))) == [(Action.DEMOTE, name) for name in "edcb"]


def test_who_comes_near_again_is_protected_by_a_touch() -> None:
    wishes = [Wish("a", 1.0, 4, 3), Wish("b", 2.0, 4, 0)]
    (step,) = plan_demotions(cache_of(wishes, capacity=8, demoted="ab"))
    assert (step.action, step.key, step.start, step.stop) == (Action.TOUCH, "a", 0, 3)


def test_one_that_does_not_fit_by_itself_leaves_the_others_where_they_are() -> None:
    wishes = [Wish("a", 1.0, 50, 4), Wish("b", 2.0, 4, 4), Wish("c", 3.0, 4, 4)]
    assert kinds(plan_demotions(cache_of(wishes, capacity=8))) == [(Action.DEMOTE, "a")]


def test_a_request_that_is_served_keeps_its_agents_blocks() -> None:
    wishes = [Wish("a", 1.0, 4, 4), Wish("b", math.inf, 40, 4, held=True)]
    assert kinds(plan_demotions(cache_of(wishes, capacity=8))) == [(Action.DEMOTE, "a")]


def test_who_has_called_just_now_is_left_alone() -> None:
    cache = cache_of([Wish("a", 1.0, 4, 4)], capacity=4, unforeseen="bc")
    assert kinds(plan_demotions(replace(cache, settling=frozenset("b")))) == [(Action.DEMOTE, "c")]


def test_where_the_engine_can_not_be_told_nobody_is_demoted() -> None:
    cache = cache_of([Wish("a", 1.0, 4, 4)], capacity=2)
    assert plan_demotions(replace(cache, demoted=None)) == []


wish = st.tuples(st.floats(0, 9), st.integers(1, 5), st.integers(0, 5), st.booleans())


@given(st.lists(wish, max_size=6), st.integers(0, 20), st.sets(st.sampled_from(NAMES)), st.integers(0, 4))
def test_a_plan_demotes_nobody_nearer_than_who_stays_and_once_carried_out_is_empty(
    drawn: list[tuple[float, int, int, bool]], capacity: int, demoted: set[str], reserve: int
) -> None:
    wishes = [
        Wish(name, seconds, blocks, min(resident, blocks), held)
        for name, (seconds, blocks, resident, held) in zip(NAMES, drawn, strict=False)
    ]
    cache = cache_of(wishes, capacity=capacity, demoted="".join(demoted), reserve=reserve)
    steps = plan_demotions(cache)
    assert steps == plan_demotions(cache)
    away = demoted | {step.key for step in steps if step.action is Action.DEMOTE}
    away -= {step.key for step in steps if step.action is Action.TOUCH}
    seconds = {wish.agent: wish.seconds for wish in wishes if not wish.held}
    stay = [seconds[agent] for agent in seconds if agent not in away and cache_has(cache, agent)]
    too_large = {wish.agent for wish in wishes if wish.blocks > capacity - reserve}
    gone = [step.seconds for step in steps if step.action is Action.DEMOTE and step.key not in too_large]
    assert not gone or not stay or max(stay) <= min(gone)
    assert not {step.key for step in steps} & {wish.agent for wish in wishes if wish.held}
    assert plan_demotions(replace(cache, demoted=frozenset(away))) == []


def cache_has(cache: BlockCache, agent: str) -> bool:
    return any(agent in lot.agents for lot in cache.lots)
