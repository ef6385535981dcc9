"""What is usual in a population: the gaps between two invocations of the same agent, whosever they are."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque

KEPT = 512


class Gaps:
    """The last 512 gaps, in clock units."""

    __slots__ = ("_by_age", "_by_length")

    def __init__(self) -> None:
        self._by_age: deque[float] = deque()
        self._by_length: list[float] = []

    def add(self, gap: float) -> None:
        """Take in the gap that an invocation has ended."""
        if len(self._by_age) == KEPT:
            del self._by_length[bisect_left(self._by_length, self._by_age.popleft())]
        self._by_age.append(gap)
        insort(self._by_length, gap)

    def usual(self, least: float) -> float | None:
        """Return the median of the gaps that are at least so long, the lower of two; None where none is."""
        shorter = bisect_left(self._by_length, least)
        longer = len(self._by_length) - shorter
        return self._by_length[shorter + (longer - 1) // 2] if longer else None
