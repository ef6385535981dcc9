"""A stream's own clock, and its pace against wall time. Pure: wall time is handed in."""

from __future__ import annotations

from collections import deque
from statistics import median

from scalesim_client.events import ClockKind

PACE_STEPS = 32


class StreamClock:
    """`now` is the last announced value. `pace` is wall seconds per clock unit, the median of recent advances.

    Until two advances were seen the pace is 1: right for clocks in seconds, a guess for steps.
    """

    __slots__ = ("_advanced_at", "_paces", "kind", "now", "pace", "step")

    def __init__(self, kind: ClockKind) -> None:
        self.kind = kind
        self.now = 0.0
        self.step = 1.0
        self.pace = 1.0
        self._advanced_at: float | None = None
        self._paces: deque[float] = deque(maxlen=PACE_STEPS)

    def advance(self, now: float, wall: float) -> bool:
        """Announce `now` at wall time `wall` (seconds); return False where the clock went back."""
        if now < self.now:
            self.now = now
            self._advanced_at = wall
            return False
        units = now - self.now
        if units > 0 and self._advanced_at is not None:
            self.step = units
            self._paces.append((wall - self._advanced_at) / units)
            self.pace = median(self._paces)
        if units > 0 or self._advanced_at is None:
            self._advanced_at = wall
        self.now = now
        return True
