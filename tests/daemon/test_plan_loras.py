from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.plan import Action, LoraCache, LoraWish, Step
from scalesim_daemon.plan_loras import plan_loras


def wish(
    name: str,
    seconds: float,
    size: int = 1,
    *,
    staged: bool = False,
    registered: bool = True,
    held: bool = False,
) -> LoraWish:
    return LoraWish(name, seconds, size, staged, registered, held)


def cache(
    *wishes: LoraWish, device: str = "", host: str = "", places: tuple[int, int] = (2, 4), free: int = 0
) -> LoraCache:
    return LoraCache(tuple(device), tuple(host), *places, wishes, free)


def kinds(steps: Sequence[Step]) -> list[tuple[Action, str]]:
    return [(step.action, step.key) for step in steps]


def test_names_come_first() -> None:
    steps = plan_loras(
        cache(wish("a", 1), wish("b", math.inf, registered=False), wish("c", 2, registered=False), free=1)
    )
    assert kinds(steps)[:3] == [(Action.REGISTER, "c"), (Action.REGISTER, "b"), (Action.STAGE, "a")]


def test_two_engines_that_read_the_same_files_agree_on_what_is_staged() -> None:
    """Each foresees calls of its own agents alone: neither takes what the other is about to read."""
    near, far = wish("a", 1), wish("b", 2, staged=True)
    one = (replace(near, files_seconds=1.0), replace(far, seconds=math.inf, files_seconds=2.0))
    two = (replace(near, seconds=math.inf, files_seconds=1.0), replace(far, files_seconds=2.0))
    staging = [
        [step for step in kinds(plan_loras(cache(*wishes))) if step[0] in (Action.STAGE, Action.UNSTAGE)]
        for wishes in (one, two)
    ]
    assert staging == [[(Action.UNSTAGE, "b"), (Action.STAGE, "a")]] * 2
    swapped = [(replace(a, staged=True), replace(b, staged=False)) for a, b in (one, two)]
    for wishes in swapped:
        assert not {Action.STAGE, Action.UNSTAGE} & dict(kinds(plan_loras(cache(*wishes)))).keys()


def test_what_has_changed_is_registered_anew_when_nobody_uses_it() -> None:
    changed = LoraWish("a", 1, 1, staged=False, registered=True, outdated=True)
    assert kinds(plan_loras(cache(changed)))[:1] == [(Action.REGISTER, "a")]
    assert Action.REGISTER not in dict(kinds(plan_loras(cache(replace(changed, held=True)))))


def test_nothing_is_prefetched_where_the_places_are_unknown_or_none() -> None:
    for places in ((None, None), (0, 4), (None, 4)):
        assert plan_loras(LoraCache((), (), *places, (wish("a", 1),))) == []


def test_the_nearest_come_last_so_that_they_end_in_slots() -> None:
    steps = plan_loras(cache(wish("a", 1), wish("b", 2), wish("c", 3), wish("d", math.inf)))
    assert kinds(steps) == [(Action.LOAD, "c"), (Action.LOAD, "b"), (Action.LOAD, "a")]
    assert steps[2].victims == ("c",)


def test_the_nearer_in_a_slot_is_touched_before_it_would_go() -> None:
    steps = plan_loras(cache(wish("a", 1), wish("b", 2), wish("c", 9), device="ac", host="ac"))
    assert kinds(steps) == [(Action.TOUCH, "a"), (Action.LOAD, "b")]
    assert steps[1].victims == ("c",)


def test_a_lora_in_use_or_nearer_is_no_victim() -> None:
    assert plan_loras(cache(wish("a", 5), wish("b", 9, held=True), device="b", host="b", places=(1, 4))) == []
    assert plan_loras(cache(wish("a", 5), wish("b", 5), device="b", host="b", places=(1, 1))) == []


def test_one_of_the_nearest_on_the_host_alone_is_kept_by_a_slot() -> None:
    """For c, h would go, which only a slot can save: h is brought first. Then e may go for d, and h to the host."""
    loras = cache(wish("b", 1), wish("d", 2), wish("h", 3), wish("c", 5), device="be", host="bhef")
    assert kinds(plan_loras(loras)) == [
        (Action.TOUCH, "b"),
        (Action.LOAD, "h"),
        (Action.TOUCH, "b"),
        (Action.LOAD, "d"),
    ]


def test_a_touch_for_a_load_that_cannot_be_had_is_taken_back() -> None:
    """For c or d, b would be touched, but then h would go, which is in use."""
    wishes = (wish("b", 1), wish("d", 2), wish("h", 3, held=True), wish("c", 5))
    assert plan_loras(cache(*wishes, device="be", host="bhef")) == []


def test_files_are_staged_by_bytes_and_the_farthest_make_room() -> None:
    wishes = (
        wish("a", 1, 5),
        wish("b", 2, 50),
        wish("c", 3, 2),
        wish("y", 8, 3, staged=True),
        wish("z", 9, 3, staged=True),
    )
    steps = plan_loras(LoraCache((), (), None, None, wishes, staging_free=1))
    assert kinds(steps) == [
        (Action.UNSTAGE, "z"),
        (Action.UNSTAGE, "y"),
        (Action.STAGE, "a"),
        (Action.STAGE, "c"),
    ]


@pytest.mark.parametrize(("chance", "loads"), [(0.4, False), (0.6, True)])
def test_a_lora_takes_the_place_of_another_where_that_is_likely_to_pay(chance: float, loads: bool) -> None:
    near = replace(wish("a", 1), chance=chance, load_seconds=1.0, stage_seconds=1.0)
    far = replace(wish("b", 60, staged=True), load_seconds=1.0, stage_seconds=1.0)
    taken = [(Action.UNSTAGE, "b"), (Action.STAGE, "a"), (Action.LOAD, "a")]
    assert kinds(plan_loras(cache(near, far, device="b", host="b", places=(1, 1)))) == taken * loads
    assert kinds(plan_loras(cache(near, places=(1, 1), free=1))) == [(Action.STAGE, "a"), (Action.LOAD, "a")]


def test_what_saves_the_fewest_seconds_per_byte_leaves_host_memory_first() -> None:
    """Two small files take as long as a large one, which is a little nearer."""
    large = replace(wish("large", 50, 8, staged=True), stage_seconds=1.0)
    small = [replace(wish(name, 60, 2, staged=True), stage_seconds=0.5) for name in "xy"]
    near = replace(wish("near", 1, 4), stage_seconds=0.6)
    steps = plan_loras(LoraCache((), (), None, None, (near, large, *small), staging_free=0))
    assert kinds(steps) == [(Action.UNSTAGE, "large"), (Action.STAGE, "near")]
    nearest = replace(large, seconds=0.5)
    steps = plan_loras(LoraCache((), (), None, None, (near, nearest, *small), staging_free=0))
    assert [step.key for step in steps if step.action is Action.UNSTAGE] == ["x", "y"]


@pytest.mark.parametrize("exchange", [2.0, 0.0])
def test_dues_that_jitter_by_less_than_the_exchange_takes_move_nothing_back_and_forth(
    exchange: float,
) -> None:
    """There is room for one of two LoRAs, in the engine and for its files."""
    rng, moves = Random(1), 0
    loras = cache(wish("a", 5), wish("b", 5), places=(1, 1), free=1)
    for _ in range(50):
        jittered = (
            replace(one, seconds=5 + rng.uniform(-0.9, 0.9), stage_seconds=exchange, load_seconds=exchange)
            for one in loras.wishes
        )
        loras = replace(loras, wishes=tuple(jittered))
        steps = plan_loras(loras)
        loras = carry_out(loras, steps)
        moves += len(steps)
    assert moves == 2 if exchange else moves > 20


names = "abcdefg"


@st.composite
def caches(draw: st.DrawFn) -> LoraCache:
    slots, exchange = draw(st.integers(1, 3)), draw(st.sampled_from([0.0, 1.5]))
    places = draw(st.none() | st.integers(slots, 5))
    host = draw(st.permutations(names))[: draw(st.integers(0, places or 7))]
    device = draw(st.permutations(host))[: draw(st.integers(0, slots))]
    wishes = tuple(
        LoraWish(
            name,
            draw(st.sampled_from([-1.0, 0.0, 1.0, 1.0, 2.0, 3.0, math.inf])),
            draw(st.integers(0, 6)),
            draw(st.booleans()),
            draw(st.integers(0, 4)) > 0,
            draw(st.integers(0, 6)) == 0,
            stage_seconds=exchange,
            load_seconds=exchange,
        )
        for name in draw(st.lists(st.sampled_from(names), unique=True))
    )
    return LoraCache(tuple(device), tuple(host), slots, places, wishes, draw(st.integers(0, 12)))


class Engine:
    """What vLLM does with its LoRA places: least recently used out; what leaves the host leaves its slot."""

    def __init__(self, cache: LoraCache) -> None:
        self.device, self.host, self.cache = list(cache.device), list(cache.host), cache

    def use(self, name: str) -> set[str]:
        before = {*self.device, *self.host}
        slotted = set(self.device)
        for order in (self.device, self.host):
            if name in order:
                order.remove(name)
        self.host.append(name)
        if self.cache.host_places is not None and len(self.host) > self.cache.host_places:
            gone = self.host.pop(0)
            if gone in self.device:
                self.device.remove(gone)
        self.device.append(name)
        assert self.cache.device_places is not None
        if len(self.device) > self.cache.device_places:
            self.device.pop(0)
        return (before - {*self.host}) | (slotted - set(self.device))


def carry_out(cache: LoraCache, steps: Sequence[Step]) -> LoraCache:
    """Carry out a plan step by step, and hold each step to what it promises."""
    engine, wishes, free = Engine(cache), {known.name: known for known in cache.wishes}, cache.staging_free
    for step in steps:
        mine = wishes[step.key]
        assert step.reason and step.kind is MemoryKind.LORA and (step.start, step.stop) == (0, 1)
        assert step.seconds == mine.seconds
        match step.action:
            case Action.REGISTER:
                assert not mine.registered
                wishes[step.key] = replace(mine, registered=True)
            case Action.STAGE:
                assert not mine.staged and mine.seconds < math.inf
                free -= mine.bytes
                wishes[step.key] = replace(mine, staged=True)
            case Action.UNSTAGE:
                assert mine.staged
                free += mine.bytes
                wishes[step.key] = replace(mine, staged=False)
            case _:
                assert mine.registered and mine.seconds < math.inf
                lost = engine.use(step.key)
                assert lost == set(step.victims)
                for name in lost & wishes.keys():
                    assert wishes[name].seconds > mine.seconds and not wishes[name].held
        assert free >= 0
    return replace(
        cache,
        device=tuple(engine.device),
        host=tuple(engine.host),
        wishes=tuple(wishes.values()),
        staging_free=free,
    )


@settings(max_examples=500, deadline=None)
@given(caches())
def test_every_step_keeps_what_is_nearer_and_plans_come_to_an_end(cache: LoraCache) -> None:
    for _ in range(4):
        steps = plan_loras(cache)
        assert steps == plan_loras(cache)
        assert [step.action for step in steps].count(Action.REGISTER) == sum(
            step.action is Action.REGISTER
            for step in steps[: sum(not known.registered for known in cache.wishes)]
        )
        if not steps:
            return
        cache = carry_out(cache, steps)
    raise AssertionError(f"still planned: {kinds(steps)}")
