"""A stream's own clock, and its pace against wall time. Pure: wall time is handed in."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

from scalesim_client.events import ClockKind

PACE_STEPS = 32
# Wall time is announced whenever something happens: its steps say nothing of how exact an estimate is.
WALL_STEP_SECONDS = 1.0


class StreamClock:
    """`now` is the last announced value, `since` the wall time at which it was. `pace` is wall seconds per clock unit,
    a median of recent ones.

    Until two advances were seen the pace is 1: right for clocks in seconds, a guess for steps.
    """

    __slots__ = ("_measured", "_paces", "kind", "now", "pace", "since", "step")

    def __init__(self, kind: ClockKind) -> None:
        self.kind = kind
        self.now = 0.0
        self.since = math.inf
        self.step = 1.0
        self.pace = 1.0
        self._measured: tuple[float, float] | None = None
        self._paces: deque[float] = deque(maxlen=PACE_STEPS)

    def advance(self, now: float, wall: float) -> bool:
        """Announce `now` at wall time `wall` (seconds); return False where the clock went back."""
        back, units = now < self.now, now - self.now
        if units or self.since == math.inf:
            self.since = wall
        self.now = now
        if back or self._measured is None:
            self._measured = now, wall
        elif units > 0:
            self.step = max(units, WALL_STEP_SECONDS) if self.kind == "wall_seconds" else units
            self._measure(wall)
        return not back

    def told(self, now: float, pace: float, step: float, wall: float) -> None:
        """Take in what a clock shows that is measured elsewhere, as of wall time `wall`."""
        if now != self.now or self.since == math.inf:
            self.since = wall
        self.now, self.pace, self.step = now, pace, step

    def begun_anew(self) -> StreamClock:
        """Return a clock that shows the same, after this one went back: a due on it is another than it was on this."""
        clock = StreamClock(self.kind)
        clock.told(self.now, self.pace, self.step, self.since)
        return clock

    def passed(self, wall: float) -> float:
        """Return how many seconds have passed since `now` was announced, no more than a step takes: longer it can't be
        until the next."""
        return min(max(0.0, wall - self.since), self.step * self.pace)

    def _measure(self, wall: float) -> None:
        """Several advances that came at one moment count as one: no pace is 0."""
        assert self._measured is not None
        now, at = self._measured
        pace = (wall - at) / (self.now - now)
        if 0 < pace < math.inf:
            self._paces.append(pace)
            self.pace = median(self._paces)
            self._measured = self.now, wall
