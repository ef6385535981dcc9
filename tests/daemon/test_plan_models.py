from __future__ import annotations

import math
from dataclasses import replace
from random import Random

from hypothesis import example, given
from hypothesis import strategies as st

from scalesim_daemon.board import Due
from scalesim_daemon.clock import StreamClock
from scalesim_daemon.plan import Action, ModelCache, ModelState, Step
from scalesim_daemon.plan_models import READY_SECONDS, plan_models


def model(
    engine: str,
    seconds: float,
    *,
    size: int = 4,
    awake: bool = False,
    held: bool = False,
    load: float = 0.0,
    sleep: float = 0.0,
    chance: float = 1.0,
) -> ModelState:
    return ModelState(engine, size, awake, seconds, held, seconds, load, sleep, chance)


def kinds(steps: list[Step]) -> list[tuple[Action, str]]:
    return [(step.action, step.key) for step in steps]


def after(cache: ModelCache, step: Step) -> ModelCache:
    awake = step.action is Action.WAKE
    return replace(
        cache,
        models=tuple(replace(one, awake=awake) if one.engine == step.key else one for one in cache.models),
    )


def taken(cache: ModelCache) -> int:
    return sum(one.bytes for one in cache.models if one.awake)


def test_the_nearest_wakes_in_the_place_of_the_farthest() -> None:
    models = (model("a", 1), model("b", 5, awake=True), model("c", math.inf, awake=True))
    assert kinds(plan_models(ModelCache(models, 8))) == [(Action.SLEEP, "c"), (Action.WAKE, "a")]


def test_what_is_awake_stays_while_there_is_room() -> None:
    models = (model("a", 1), model("b", math.inf, awake=True), model("c", math.inf))
    assert kinds(plan_models(ModelCache(models, 8))) == [(Action.WAKE, "a")]


def test_what_is_nearer_by_less_than_the_exchange_takes_changes_nothing() -> None:
    for nearer, steps in ((3.9, 0), (4.1, 2)):
        models = (model("a", 1.0, load=4.0), model("b", 1.0 + nearer, awake=True))
        assert len(plan_models(ModelCache(models, 4))) == steps


def test_dues_that_jitter_by_less_than_the_exchange_takes_move_nothing_back_and_forth() -> None:
    rng, cache, moves = Random(1), ModelCache((model("a", 2, load=4), model("b", 2, load=4)), 4), 0
    for _ in range(100):
        jittered = (replace(one, seconds=2 + rng.uniform(-1.9, 1.9)) for one in cache.models)
        cache = replace(cache, models=tuple(jittered))
        for step in plan_models(cache):
            cache = after(cache, step)
            moves += 1
    assert moves == 1


def test_a_four_second_load_starts_four_seconds_early() -> None:
    """After another model has been put to sleep, which takes a second; and at once where nobody would call that one."""
    for left, moves in ((5.6 + READY_SECONDS, 0), (4.9 + READY_SECONDS, 2)):
        near = replace(model("a", 9.0, load=4.0), left=left)
        assert len(plan_models(ModelCache((near, model("b", 60.0, awake=True, sleep=1.0)), 4))) == moves
        assert len(plan_models(ModelCache((near, model("b", math.inf, awake=True, sleep=1.0)), 4))) == 2
        assert len(plan_models(ModelCache((near, model("b", 60.0, awake=True, sleep=1.0)), 8))) == 1


def test_models_that_wake_one_after_the_other_start_so_much_earlier() -> None:
    awake = (model("y", 90.0, awake=True), model("z", 90.0, awake=True))
    for left, woken in ((8.6, "a"), (8.4, "ab")):
        first = replace(model("a", 30.0, load=4.0), left=1.0)
        models = (first, replace(model("b", 31.0, load=4.0), left=left), *awake)
        steps = plan_models(ModelCache(models, 8))
        assert [step.key for step in steps if step.action is Action.WAKE] == list(woken)


def test_a_clock_of_steps_is_taken_by_its_pace_between_two_ticks_too() -> None:
    """Steps of 10 s, the call at the next one: 4 seconds before it, the model begins to wake."""
    clock = StreamClock("step")
    for now, wall in ((0, 0.0), (1, 10.0), (2, 20.0)):
        clock.advance(now, wall)
    due = Due(3.0, 1.0, "a test", clock, "src")
    awake = []
    for wall in (20.0, 25.0, 25.4, 25.6, 31.0, 99.0):
        near = replace(model("a", due.seconds, load=4.0), left=due.left(wall))
        awake.append(bool(plan_models(ModelCache((near, model("b", 60.0, awake=True)), 4))))
    assert due.seconds == 10.0
    assert awake == [False, False, False, True, True, True]


def test_requests_keep_a_model_awake_and_wake_one_that_sleeps() -> None:
    serving, near = model("b", math.inf, awake=True, held=True), model("a", 0)
    assert plan_models(ModelCache((near, serving), 4)) == []
    waited_for, idle = model("b", math.inf, held=True), model("a", 0, awake=True)
    steps = plan_models(ModelCache((idle, waited_for), 4))
    assert kinds(steps) == [(Action.SLEEP, "a"), (Action.WAKE, "b")]


def test_more_awake_than_fits_is_put_to_sleep_the_farthest_first() -> None:
    models = tuple(model(name, seconds, awake=True) for name, seconds in zip("abc", (3, 2, 1), strict=True))
    assert kinds(plan_models(ModelCache(models, 4))) == [(Action.SLEEP, "a"), (Action.SLEEP, "b")]


def test_what_two_leave_room_for_together_does_not_go_in_vain() -> None:
    """The one that requests wait for needs b or c and no more, the other the rest of them and no more."""
    models = (
        model("a", math.inf, size=1, awake=True),
        model("b", 0, size=4, awake=True),
        model("c", 0, size=6, awake=True),
        model("d", math.inf, size=3, held=True),
        model("e", math.inf, size=5, held=True),
    )
    steps = plan_models(ModelCache(models, 12))
    assert kinds(steps) == [
        *((Action.SLEEP, name) for name in "ac"),
        *((Action.WAKE, name) for name in "de"),
    ]


def test_a_poor_estimate_wakes_a_model_only_where_nothing_is_lost_by_it() -> None:
    near = model("a", 1.0, load=4.0, chance=0.4)
    far = model("b", 60.0, awake=True, load=4.0)
    assert plan_models(ModelCache((near, far), 4)) == []
    assert kinds(plan_models(ModelCache((near, far), 8))) == [(Action.WAKE, "a")]
    assert len(plan_models(ModelCache((near, replace(far, load_seconds=1.0)), 4))) == 2
    assert len(plan_models(ModelCache((replace(near, held=True), far), 4))) == 2


SECONDS = st.one_of(st.just(math.inf), st.floats(0, 10))
EASY = st.builds(ModelState, st.just(""), st.integers(1, 9), st.booleans(), SECONDS, st.booleans())
COSTLY = st.builds(
    replace,
    EASY,
    seconds=SECONDS | st.just(-1.0),
    left=SECONDS,
    load_seconds=st.sampled_from((0.0, 1.0, 3.0)),
    chance=st.sampled_from((0.6, 0.9, 1.0)),
)


def caches(states: st.SearchStrategy[ModelState]) -> st.SearchStrategy[ModelCache]:
    return st.builds(
        lambda states, budget: ModelCache(
            tuple(replace(state, engine=f"e{number}") for number, state in enumerate(states)), budget
        ),
        st.lists(states, max_size=7),
        st.integers(0, 24),
    )


CACHES = caches(EASY)


@given(CACHES)
def test_the_budget_holds_after_each_step(cache: ModelCache) -> None:
    """Where it didn't before, each step makes it better, until only what serves requests is left."""
    for step in plan_models(cache):
        changed = after(cache, step)
        assert taken(changed) <= cache.budget or taken(changed) < taken(cache)
        cache = changed
    serving = sum(one.bytes for one in cache.models if one.awake and one.held)
    assert taken(cache) <= max(cache.budget, serving)


@given(CACHES)
def test_nobody_who_serves_sleeps_and_nobody_wakes_for_nothing(cache: ModelCache) -> None:
    known = {one.engine: one for one in cache.models}
    for step in plan_models(cache):
        one = known[step.key]
        assert one.awake == (step.action is Action.SLEEP)
        assert not (step.action is Action.SLEEP and one.held)
        assert step.action is Action.SLEEP or one.held or one.seconds < math.inf
        assert step.reason


@given(CACHES)
def test_nothing_sleeps_that_is_nearer_than_all_that_stay_or_wake(cache: ModelCache) -> None:
    steps = plan_models(cache)
    final = cache
    for step in steps:
        final = after(final, step)
    room = cache.budget - taken(final)
    for step in steps:
        if step.action is Action.SLEEP:
            gone = next(one for one in cache.models if one.engine == step.key)
            farther = [
                one for one in final.models if one.awake and not one.held and one.seconds > gone.seconds
            ]
            assert gone.bytes > room + sum(one.bytes for one in farther)


@given(caches(COSTLY))
@example(
    ModelCache(
        (
            model("a", 1, size=3, awake=True, load=3.0),
            model("b", 0, size=9, awake=True, load=9.0),
            model("c", 8, size=7, load=7.0, chance=0.94),
            model("d", 0, size=9, awake=True, load=9.0),
            model("e", -1, size=3, load=3.0),
            model("f", 0, size=2, awake=True, load=2.0, chance=0.62),
        ),
        10,
    )
)
def test_nothing_goes_to_sleep_for_which_there_is_room(cache: ModelCache) -> None:
    final = cache
    for step in plan_models(cache):
        final = after(final, step)
    gone = [one for one, then in zip(cache.models, final.models, strict=True) if one.awake and not then.awake]
    assert all(one.bytes > cache.budget - taken(final) for one in gone)


@given(CACHES)
@example(
    ModelCache(
        (
            model("a", 0, size=9, awake=True),
            model("b", math.inf, size=4, awake=True, held=True),
            model("c", 2, size=6, awake=True),
            model("d", 3, size=6),
            model("e", 0, size=2, awake=True),
            model("f", 7, size=4),
            model("g", 9, size=3, held=True),
        ),
        14,
    )
)
def test_done_is_done_and_equal_snapshots_give_equal_plans(cache: ModelCache) -> None:
    steps = plan_models(cache)
    assert plan_models(replace(cache, models=cache.models[::-1])) == steps
    for step in steps:
        cache = after(cache, step)
    assert plan_models(cache) == []
