"""At which hours of the day an agent is invoked."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

DAY = 86_400.0
_DAYS_KEPT = 14
_HOURS = 24


class Hours:
    """One agent's invocations per hour of the day, over the 14 to 28 days since the first of them."""

    __slots__ = ("_counts", "_first")

    def __init__(self, calls: Iterable[float]) -> None:
        """Begin with some invocations, at these seconds, the first of them first."""
        self._counts = array("f", bytes(4 * _HOURS))
        self._first: float | None = None
        for now in calls:
            self.count(now)

    def count(self, now: float) -> None:
        """Take in an invocation."""
        self._counts[_hour(now)] += 1
        if self._first is None:
            self._first = now
        elif now - self._first > 2 * _DAYS_KEPT * DAY:
            self._first = now - _DAYS_KEPT * DAY
            for hour in range(_HOURS):
                self._counts[hour] /= 2

    def gap(self, last: float) -> float | None:
        """Return after how many seconds the invocations that are usual at these hours will have added up to one since
        the `last`; None before there is a day of them."""
        days = (last - (last if self._first is None else self._first)) / DAY
        if days < 1:
            return None
        left = days  # in calls of all days together
        whole = left // sum(self._counts)
        left -= whole * sum(self._counts)
        passed, hour = 0.0, _hour(last)
        rest = 1.0 - last % (DAY / _HOURS) / (DAY / _HOURS)
        for _ in range(_HOURS + 1):
            if left <= self._counts[hour] * rest:
                break
            left -= self._counts[hour] * rest
            passed += rest * DAY / _HOURS
            hour, rest = (hour + 1) % _HOURS, 1.0
        share = left / self._counts[hour] if self._counts[hour] else 0.0
        return passed + whole * DAY + min(share, 1.0) * DAY / _HOURS


def _hour(now: float) -> int:
    return int(now % DAY * _HOURS / DAY) % _HOURS
