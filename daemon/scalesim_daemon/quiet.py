"""When speculative work may use the engine. Pure: wall time is handed in.

An engine that is idle, and has been asked only what a simulation announced, is ours to use. Where requests
were seen that nobody announced, speculative work starts only while nothing runs, and uses at most `share` of
the wall time: as such requests see the engine at random moments, no more than that share of them can meet our
work (PASTA: Poisson arrivals see time averages), which keeps their 95th percentile where it was.

A simulation that calls again at once leaves lulls too short for any work: what starts in one only delays the
next call. Where lulls have lately been shorter than the work, one has to last as long as the work first.
"""

from __future__ import annotations

from collections import deque
from statistics import median

from scalesim_adapters.base import Pressure

MEMORY_SECONDS = 30.0
REBASE_SECONDS = 60.0
LARGEST_CREDIT_SECONDS = 1.0
REMEMBERED_LULLS = 9
# Work of ours in an engine of our own costs little: a call may come while it is under way, and estimates that are
# hardly better than recency aren't worth it. Who comes unannounced meanwhile waits for half of it, in the mean.
OWN_PRICE = 0.2
SHARED_PRICE = 0.5


class Quiet:
    """Decides for one engine. It counts requests since its start, ours and announced ones since ours."""

    def __init__(self, share: float) -> None:
        self.share = share
        self._credit = 0.0
        self._credited_at: float | None = None
        self._excess: int | None = None
        self._last_excess = 0
        self._peak = 0
        self._rebased_at = 0.0
        self._foreign_at: float | None = None
        self._lull_began: float | None = None
        self._lulls: deque[float] = deque(maxlen=REMEMBERED_LULLS)
        self.pressure: Pressure | None = None

    def observe(self, pressure: Pressure, accounted: int, wall: float) -> None:
        """Take in the engine's counts; `accounted` is how many requests we have started or heard announced, of an
        engine that doesn't count what has finished those that haven't.

        What one look alone shows may be a request whose announcement is still on its way: two in a row must
        show it. Requests that never reach the engine make the excess smaller; it is then taken anew from the
        last minute's peak.
        """
        self.pressure = pressure
        if pressure.finished is None:
            excess = pressure.running + pressure.waiting - accounted
            if min(excess, self._last_excess) > 0:
                self._foreign_at = wall
            self._last_excess = excess
            return
        excess = pressure.finished + pressure.running + pressure.waiting - accounted
        if self._excess is None:
            self._excess = self._last_excess = self._peak = excess
            self._rebased_at = wall
            return
        certain, self._last_excess = min(excess, self._last_excess), excess
        self._peak = max(self._peak, certain)
        if certain > self._excess:
            self._foreign_at = wall
            self._excess = certain
        if wall - self._rebased_at > REBASE_SECONDS:
            self._excess, self._peak, self._rebased_at = self._peak, certain, wall

    def met_others(self, wall: float) -> None:
        """The engine's server had requests that nobody announced, beside ours. Counting alone misses some: what is
        aborted never counts as finished."""
        self._foreign_at = wall

    def restarted(self) -> None:
        """The engine counts from zero again."""
        self._excess = None
        self.pressure = None

    def taken_over(self) -> None:
        """Another daemon has driven the engine until now: its requests were no strangers'."""
        self._excess, self._last_excess, self._foreign_at = None, 0, None

    def shared(self, wall: float) -> bool:
        """Whether the engine has lately served requests that nobody announced."""
        return self._foreign_at is not None and wall - self._foreign_at < MEMORY_SECONDS

    def price(self, wall: float) -> float:
        """Return what a second of speculative work costs others, in seconds."""
        return SHARED_PRICE if self.shared(wall) else OWN_PRICE

    def may_start(self, announced: int, seconds: float, wall: float) -> bool:
        """Whether work of about `seconds` may start now, while `announced` invocations are being served."""
        self._accrue(wall)
        self._note_lull(announced, wall)
        if announced or self.pressure is None or self.pressure.waiting or not self._fits_lull(seconds, wall):
            return False
        if not self.shared(wall):
            return True
        return self.pressure.running == 0 and self._credit >= min(seconds, LARGEST_CREDIT_SECONDS)

    def spent(self, seconds: float, wall: float) -> None:
        """Account for speculative work that ran; what an engine of our own does is free."""
        self._accrue(wall)
        if self.shared(wall):
            self._credit -= seconds

    def _note_lull(self, announced: int, wall: float) -> None:
        if not announced:
            self._lull_began = wall if self._lull_began is None else self._lull_began
        elif self._lull_began is not None:
            self._lulls.append(wall - self._lull_began)
            self._lull_began = None

    def _fits_lull(self, seconds: float, wall: float) -> bool:
        if self._lull_began is None or not self._lulls or median(self._lulls) >= seconds:
            return True
        return wall - self._lull_began >= seconds

    def _accrue(self, wall: float) -> None:
        if self._credited_at is not None:
            earned = self.share * (wall - self._credited_at)
            self._credit = min(LARGEST_CREDIT_SECONDS, self._credit + earned)
        self._credited_at = wall
