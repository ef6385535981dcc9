"""Plan which engines' models are awake in the memory that they share. Pure."""

from __future__ import annotations

import math

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.plan import Action, ModelCache, ModelState, Step

# What is awake is taken to be nearer by this much: to change models costs about as long.
SWITCH_SECONDS = 1.0


def plan_models(cache: ModelCache) -> list[Step]:
    """Return the steps in order: who is to sleep first, the farthest of them first; then who wakes, the nearest first.
    So memory is free before it is taken."""
    stay = _fitting(cache)
    asleep = sorted(
        (model for model in cache.models if model.awake and model not in stay), key=_nearness, reverse=True
    )
    woken = sorted((model for model in stay if not model.awake), key=_nearness)
    room = ", ".join(model.engine for model in woken) or "all that is awake"
    return [
        *(_step(Action.SLEEP, model, f"there is no room for it beside {room}") for model in asleep),
        *(_step(Action.WAKE, model, "among the nearest whose models fit into the memory") for model in woken),
    ]


def _fitting(cache: ModelCache) -> list[ModelState]:
    """Return the nearest models that fit together. What serves requests stays, whatever it takes."""
    serving = [model for model in cache.models if model.awake and model.held]
    others = [
        model
        for model in cache.models
        if model not in serving and (model.awake or model.held or model.seconds < math.inf)
    ]
    free = cache.budget - sum(model.bytes for model in serving)
    fitting = serving
    for model in sorted(others, key=_nearness):
        if model.bytes <= free:
            free -= model.bytes
            fitting = [*fitting, model]
    return fitting


def _nearness(model: ModelState) -> tuple[float, float, str]:
    """Order by distance; a model that requests wait for is nearer than any."""
    seconds = -math.inf if model.held else model.seconds - (SWITCH_SECONDS if model.awake else 0.0)
    return seconds, model.seconds, model.engine


def _step(action: Action, model: ModelState, reason: str) -> Step:
    return Step(action, MemoryKind.MODEL, model.engine, 0, 1, model.seconds, reason)
