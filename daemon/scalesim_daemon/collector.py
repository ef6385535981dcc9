"""How often Python looks through all that there is for garbage: seldom, since everything waits meanwhile."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import monotonic, thread_time

SHARE = 0.001
_WHOLE = 2
"""The generation of a collection that looks through everything."""
_NEVER = 1 << 30


@contextmanager
def collected_seldom() -> Iterator[None]:
    """Have whole collections take a thousandth of the time at most: one that took 20 ms is followed by none for 20 s.

    By itself Python begins one once there are a quarter more objects that it watches than after the last. What is
    kept of agents are few such objects, but large ones: each look takes long, and the next one comes soon.
    What there is on entry, as after a start, stays until the end: it isn't looked through at all.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    pace = _Pace(before)
    gc.callbacks.append(pace.collected)
    try:
        yield
    finally:
        gc.callbacks.remove(pace.collected)
        gc.set_threshold(*before)
        gc.unfreeze()


class _Pace:
    """Puts off whole collections; smaller ones, which come often, are the occasions to look at the time."""

    def __init__(self, thresholds: tuple[int, int, int]) -> None:
        self._thresholds = thresholds
        self._began = 0.0
        self._next = 0.0
        self._put_off = False

    def collected(self, phase: str, info: Mapping[str, int]) -> None:
        """Python calls this before and after each collection."""
        now = monotonic()
        if phase == "start":
            self._began = thread_time()
        elif info["generation"] == _WHOLE:
            self._next = now + (thread_time() - self._began) / SHARE
            self._put_off = True
            gc.set_threshold(self._thresholds[0], self._thresholds[1], _NEVER)
        elif self._put_off and now >= self._next:
            self._put_off = False
            gc.set_threshold(*self._thresholds)
