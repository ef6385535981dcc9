"""Plan which engines' models are awake in the memory that they share. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.plan import Action, ModelCache, ModelState, Step
from scalesim_daemon.swaps import leaving

# By how much a model is ready before it is called: what the planner and the engine take to begin.
READY_SECONDS = 0.5


def plan_models(cache: ModelCache) -> list[Step]:
    """Return the steps in order: who is to sleep first, the farthest of them first; then who wakes, the nearest first.
    So memory is free before it is taken.

    A model for which another has to sleep that will be called too is woken when it is time: as long before its call as
    that takes. Until then the other may still be called.
    """
    stay, asleep = _settled(cache, _exchanged(cache))
    woken = sorted((model for model in stay if not model.awake), key=_nearness)
    room = ", ".join(model.engine for model in woken) or "all that is awake"
    return [
        *(_step(Action.SLEEP, model, f"there is no room for it beside {room}") for model in asleep),
        *(_step(Action.WAKE, model, "among the nearest whose models fit into the memory") for model in woken),
    ]


def _exchanged(cache: ModelCache) -> list[ModelState]:
    """Return which models are to be awake, those that sleep taken one after the other, the nearest first."""
    stay = _fitting(cache)
    ahead = 0.0
    for model in sorted(_asleep_and_wanted(cache), key=_nearness):
        going = leaving(model, (one for one in stay if one.awake), _free(cache, stay))
        if going is None:
            continue
        exchange = model.load_seconds + sum(one.sleep_seconds for one in going)
        if not model.held and _wanted(going) and model.left > ahead + exchange + READY_SECONDS:
            continue
        ahead += exchange
        stay = [*(one for one in stay if one not in going), model]
    return stay


def _settled(cache: ModelCache, stay: list[ModelState]) -> tuple[list[ModelState], list[ModelState]]:
    """Return who is awake in the end, and who goes to sleep, the farthest first. Who goes for one model and who goes
    for another may leave more room together than both need: then somebody near would go while farther ones stay, or
    there is room, and be woken next."""
    asleep: list[ModelState] = []
    gone = [one for one in cache.models if one.awake and one not in stay]
    while gone:
        gone.sort(key=_nearness)
        model = gone.pop(0)
        going = leaving(model, stay, _free(cache, stay))
        if going is not None:
            stay = [*(one for one in stay if one not in going), model]
            gone += [*going, *asleep]
            asleep = []
        elif model.awake:
            asleep.insert(0, model)
    for model in sorted((one for one in _asleep_and_wanted(cache) if one not in stay), key=_nearness):
        if model.bytes <= _free(cache, stay):
            stay = [*stay, model]
    return stay, asleep


def _asleep_and_wanted(cache: ModelCache) -> list[ModelState]:
    return [model for model in cache.models if not model.awake and (model.held or model.seconds < math.inf)]


def _free(cache: ModelCache, stay: Sequence[ModelState]) -> int:
    return cache.budget - sum(model.bytes for model in stay)


def _fitting(cache: ModelCache) -> list[ModelState]:
    """Return the nearest of those awake that fit together. What serves requests stays, whatever it takes."""
    free = cache.budget
    fitting = []
    for model in sorted((model for model in cache.models if model.awake), key=_nearness):
        if model.held or model.bytes <= free:
            free -= model.bytes
            fitting.append(model)
    return fitting


def _wanted(models: Sequence[ModelState]) -> bool:
    return any(model.seconds < math.inf for model in models)


def _nearness(model: ModelState) -> tuple[float, float, str]:
    """Order by distance; a model that requests wait for is nearer than any."""
    return -math.inf if model.held else model.seconds, model.seconds, model.engine


def _step(action: Action, model: ModelState, reason: str) -> Step:
    return Step(action, MemoryKind.MODEL, model.engine, 0, 1, model.seconds, reason, bytes=model.bytes)
