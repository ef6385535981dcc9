from __future__ import annotations

import math
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from scalesim_daemon.plan import Action, ModelCache, ModelState, Step
from scalesim_daemon.plan_models import SWITCH_SECONDS, plan_models


def model(
    engine: str, seconds: float, *, size: int = 4, awake: bool = False, held: bool = False
) -> ModelState:
    return ModelState(engine, size, awake, seconds, held)


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


def test_a_little_nearer_changes_nothing() -> None:
    for seconds, steps in ((0.9 * SWITCH_SECONDS, 0), (2.1 * SWITCH_SECONDS, 2)):
        models = (model("a", 1.0), model("b", 1.0 + seconds, awake=True))
        assert len(plan_models(ModelCache(models, 4))) == steps


def test_requests_keep_a_model_awake_and_wake_one_that_sleeps() -> None:
    serving, near = model("b", math.inf, awake=True, held=True), model("a", 0)
    assert plan_models(ModelCache((near, serving), 4)) == []
    waited_for, idle = model("b", math.inf, held=True), model("a", 0, awake=True)
    steps = plan_models(ModelCache((idle, waited_for), 4))
    assert kinds(steps) == [(Action.SLEEP, "a"), (Action.WAKE, "b")]


def test_more_awake_than_fits_is_put_to_sleep_the_farthest_first() -> None:
    models = tuple(model(name, seconds, awake=True) for name, seconds in zip("abc", (3, 2, 1), strict=True))
    assert kinds(plan_models(ModelCache(models, 4))) == [(Action.SLEEP, "a"), (Action.SLEEP, "b")]


SECONDS = st.one_of(st.just(math.inf), st.floats(0, 10))
STATES = st.lists(
    st.builds(ModelState, st.just(""), st.integers(1, 9), st.booleans(), SECONDS, st.booleans()), max_size=7
)
CACHES = st.builds(
    lambda states, budget: ModelCache(
        tuple(replace(state, engine=f"e{number}") for number, state in enumerate(states)), budget
    ),
    STATES,
    st.integers(0, 24),
)


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


@given(CACHES)
def test_done_is_done_and_equal_snapshots_give_equal_plans(cache: ModelCache) -> None:
    steps = plan_models(cache)
    assert plan_models(replace(cache, models=cache.models[::-1])) == steps
    for step in steps:
        cache = after(cache, step)
    assert plan_models(cache) == []
