"""Who has a due that has passed, found without a look at all the others."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from scalesim_client.events import ClockKind

T = TypeVar("T", int, str)


def day_of(clock: ClockKind) -> float:
    """Return what a day is in the calendar of such a clock, in its units."""
    return 1.0 if clock == "step" else 60.0


class Calendar(Generic[T]):
    """Items by their dues. Those that are far off lie unsorted, by days of `day` clock units, and are put in order when
    their day comes: so an item costs a place in a list.

    An item whose due changes is put here once more: where it lay before it no longer counts, since `due_of` tells the
    due that holds.
    """

    __slots__ = ("_coming", "_day", "_days", "_due_of", "_near", "_size", "_until")

    def __init__(self, day: float, due_of: Callable[[T], float]) -> None:
        self._day = day
        self._due_of: Callable[[T], float] = due_of
        self.clear()

    def clear(self) -> None:
        """Take everything out."""
        self._days: dict[int, list[T]] = {}
        self._coming: list[int] = []
        self._near: list[tuple[float, T]] = []
        self._until = float("-inf")
        self._size = 0

    def put(self, item: T, due: float) -> None:
        """Note the due that an item has now."""
        self._size += 1
        if due < self._until:
            heappush(self._near, (due, item))
            return
        day = int(due // self._day)
        if day in self._days:
            self._days[day].append(item)
        else:
            self._days[day] = [item]
            heappush(self._coming, day)

    def refill(self, items: Iterable[tuple[T, float]]) -> None:
        """Have nothing but these items here: what no longer counts takes no place any more."""
        self.clear()
        for item, due in items:
            self.put(item, due)

    def passed(self, before: float, most: int = sys.maxsize) -> list[T]:
        """Take out the items whose due lies before that, and return them in the order of these, each once. No more than
        `most` are put in order, and so many returned: while there `may_have_passed` any, ask again."""
        room = most
        while room and self._coming and self._coming[0] * self._day < before:
            room -= self._open(self._coming[0], room)
        passed: dict[T, None] = {}
        while self._near and self._near[0][0] < before and len(passed) < most:
            due, item = heappop(self._near)
            self._size -= 1
            if self._due_of(item) == due:
                passed[item] = None
        return list(passed)

    def may_have_passed(self, before: float) -> bool:
        """Whether there are items whose due may lie before that."""
        near = bool(self._near) and self._near[0][0] < before
        return near or (bool(self._coming) and self._coming[0] * self._day < before)

    def __len__(self) -> int:
        """Return how many items lie here, those that no longer count among them."""
        return self._size

    def _open(self, day: int, most: int) -> int:
        """Put no more than so many items of a day in order; return how many."""
        items = self._days[day]
        opened = items[-most:]
        del items[-most:]
        ends = (day + 1) * self._day
        here = [(due, item) for item in opened if (due := self._due_of(item)) < ends]
        self._size -= len(opened) - len(here)
        if len(here) < len(self._near) // 8:
            for one in here:
                heappush(self._near, one)
        else:
            self._near += here
            heapify(self._near)
        if not items:
            del self._days[day]
            heappop(self._coming)
            self._until = ends
        return len(opened)
