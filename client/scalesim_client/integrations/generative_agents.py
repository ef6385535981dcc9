"""Generative agents as in Park et al.'s code (`reverie`, 2023), and what is derived from it; nothing of it is imported.

A persona has a `name`, `move(maze, personas, curr_tile, curr_time)`, and a `scratch` with `act_start_time` (datetime),
`act_duration` (minutes), `chatting_with`, `chatting_end_time`, `curr_tile`, `planned_path` (tiles, the destination
last) and `vision_r` (tiles), as in `persona/memory_structures/scratch.py` there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from functools import wraps
from typing import Any

from scalesim_client.integrations.harmless import harmless, invoking
from scalesim_client.publisher import Publisher
from scalesim_client.tags import RequestTags

_EPOCH = datetime(1970, 1, 1)
_MOVING: ContextVar[tuple[_Told | None, str]] = ContextVar("scalesim_moving", default=(None, ""))


def attach(personas: Iterable[Any], publisher: Publisher, *, sec_per_step: float = 10.0) -> None:
    """Have each persona's `move` say the time before it, and after it what the persona does until when, and where it
    goes. `publisher` has the clock `sim_seconds`; personas walk a tile per step of `sec_per_step` seconds.
    """
    told = _Told(publisher, sec_per_step)
    for persona in personas:
        persona.move = _telling(persona, persona.move, told)


@contextmanager
def asking() -> Iterator[RequestTags]:
    """Say that an LLM request runs, of the persona whose `move` runs here; yields the request's tags.

    It stands around the one place that calls the engine; outside of a `move` it says nothing.
    """
    told, name = _MOVING.get()
    if told is not None:
        told.asks(name)
    with invoking(None if told is None else told.publisher, name) as tags:
        yield tags


def _telling(persona: Any, move: Any, told: _Told) -> Any:
    @wraps(move)
    def moving(*args: Any, **kwargs: Any) -> Any:
        with harmless("the personas' time"):
            told.time(kwargs["curr_time"] if "curr_time" in kwargs else args[3])
        token = _MOVING.set((told, str(persona.name)))
        try:
            result = move(*args, **kwargs)
        finally:
            _MOVING.reset(token)
        told.persona(str(persona.name), persona.scratch)
        return result

    return moving


class _Told:
    """What has been said of the personas, so that only what changes is said."""

    def __init__(self, publisher: Publisher, sec_per_step: float) -> None:
        self.publisher = publisher
        self._sec_per_step = sec_per_step
        self._now: float | None = None
        self._until: dict[str, float] = {}
        self._going: dict[str, Any] = {}

    def time(self, curr_time: datetime) -> None:
        now = _seconds(curr_time)
        if now != self._now:
            self._now = now
            self.publisher.step(now)

    def asks(self, name: str) -> None:
        """A request, as in the middle of an action, ends the activity that was said before it."""
        self._until.pop(name, None)

    def persona(self, name: str, scratch: Any) -> None:
        with harmless("what a persona does"):
            until = _until(scratch)
            if until is not None and until != self._until.get(name):
                self._until[name] = until
                self.publisher.activity(name, until=until)
            self._tell_way(name, scratch)

    def _tell_way(self, name: str, scratch: Any) -> None:
        path = [tuple(tile) for tile in scratch.planned_path or ()]
        vision = 0.0 if scratch.chatting_with else float(scratch.vision_r)
        here = tuple(scratch.curr_tile)
        # One who walks is where the last word said that it would be; one who stands has to be told of once more.
        going = (path[-1] if path else here, vision, bool(path))
        if going == self._going.get(name):
            return
        self._going[name] = going
        if not path:
            self.publisher.moved(name, xy=here, vision=vision)
            return
        # The way winds; who goes straight at this speed arrives when the persona does. Its next tile left the path.
        speed = math.dist(here, path[-1]) / ((len(path) + 1) * self._sec_per_step)
        self.publisher.moved(name, xy=here, destination=path[-1], speed=speed, vision=vision)


def _until(scratch: Any) -> float | None:
    """Return when the persona's action ends, as `Scratch.act_check_finished` reckons: from the next full minute."""
    if scratch.chatting_with and scratch.chatting_end_time:
        return _seconds(scratch.chatting_end_time)
    start = scratch.act_start_time
    if start is None or scratch.act_duration is None:
        return None
    if start.second:
        start = start.replace(second=0) + timedelta(minutes=1)
    return _seconds(start + timedelta(minutes=scratch.act_duration))


def _seconds(time: datetime) -> float:
    """Return a time of the simulation, which has no zone, as seconds that never go back."""
    return (time.replace(tzinfo=None) - _EPOCH).total_seconds()
