"""Which agents' ways come near each other: a spatial index that one agent's change touches only locally."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from math import floor
from typing import Any, NamedTuple

_MAX_CELLS = 1024
_MAX_LOOKS = 8192
_FIRST_FIT = 16
_SMALLEST_CELL = 1e-6


class Strip(NamedTuple):
    """The ground within `radius` of the straight line from (x, y) to (to_x, to_y)."""

    x: float
    y: float
    to_x: float
    to_y: float
    radius: float

    def span(self) -> float:
        """Return the cell size at which the strip covers about fifteen cells at most."""
        return 2 * self.radius + max(abs(self.to_x - self.x), abs(self.to_y - self.y)) / 4


class StripGrid:
    """Strips in a uniform grid of square cells: strips that have a point in common share a cell.

    The cell size follows the mean span of the strips; it is looked at again each time there were twice as
    many insertions as there were strips, so that this costs a constant part of each. A strip that would cover
    more than 1,024 cells is compared with every other one.
    """

    __slots__ = ("_cell", "_cells", "_covers", "_insertions_left", "_strips", "_wide")

    def __init__(self) -> None:
        self._cell = 1.0
        self._cells: dict[tuple[int, int], dict[str, None]] = {}
        self._covers: dict[str, list[tuple[int, int]]] = {}
        self._strips: dict[str, Strip] = {}
        self._wide: dict[str, None] = {}
        self._insertions_left = _FIRST_FIT

    def insert(self, agent: str, strip: Strip) -> None:
        """Put an agent's strip in the place of its earlier one."""
        self.remove(agent)
        self._strips[agent] = strip
        self._cover(agent, strip)
        self._insertions_left -= 1
        if self._insertions_left == 0:
            self._fit()

    def remove(self, agent: str) -> None:
        """Forget an agent, if it is there."""
        if self._strips.pop(agent, None) is not None:
            self._uncover(agent)

    def near(self, agent: str, most: int) -> Sequence[str]:
        """Return up to `most` other agents whose strips may touch the agent's; calls decide the order. Where there are
        more, those come that are near where its strip begins, and of these who was inserted last; they are looked for
        in so many cells as hold 8,192 strips."""
        groups: list[dict[str, Any]] = [self._strips]
        if agent not in self._wide:
            groups = [*map(self._cells.__getitem__, self._covers[agent]), self._wide]
            if sum(map(len, groups)) > most:
                groups = [*map(self._cells.__getitem__, self._from_begin(agent)), self._wide]
        found: dict[str, None] = {}
        looks = 0
        for group in groups:
            found.update(dict.fromkeys(islice(reversed(group), most + 1)))
            looks += min(len(group), most + 1)
            if len(found) > most or looks > _MAX_LOOKS:
                break
        found.pop(agent, None)
        return list(islice(found, most))

    def _from_begin(self, agent: str) -> list[tuple[int, int]]:
        x, y = self._strips[agent].x / self._cell, self._strips[agent].y / self._cell
        return sorted(
            self._covers[agent], key=lambda cell: (cell[0] + 0.5 - x) ** 2 + (cell[1] + 0.5 - y) ** 2
        )

    def _cover(self, agent: str, strip: Strip) -> None:
        cells = list(_cells_of(strip, self._cell))
        if len(cells) > _MAX_CELLS:
            self._wide[agent] = None
            return
        self._covers[agent] = cells
        for cell in cells:
            self._cells.setdefault(cell, {})[agent] = None

    def _uncover(self, agent: str) -> None:
        self._wide.pop(agent, None)
        for cell in self._covers.pop(agent, ()):
            inhabitants = self._cells[cell]
            del inhabitants[agent]
            if not inhabitants:
                del self._cells[cell]

    def _fit(self) -> None:
        """Give the cells the mean span, unless they are within a factor of two of it."""
        count = len(self._strips)
        self._insertions_left = 2 * count + _FIRST_FIT
        ideal = sum(strip.span() for strip in self._strips.values()) / count
        if ideal == 0 or ideal / 2 <= self._cell <= ideal * 2:
            return
        self._cell = max(ideal, _SMALLEST_CELL)
        self._cells.clear()
        self._covers.clear()
        self._wide.clear()
        for agent, strip in self._strips.items():
            self._cover(agent, strip)


def _cells_of(strip: Strip, size: float) -> Iterator[tuple[int, int]]:
    """Yield the cells that the strip touches (and a few more), row by row, to just over the limit."""
    radius = strip.radius + 1e-6 * (1 + size)
    dx, dy = strip.to_x - strip.x, strip.to_y - strip.y
    south, north = min(strip.y, strip.to_y), max(strip.y, strip.to_y)
    first, last = floor((south - radius) / size), floor((north + radius) / size)
    yielded = 0
    for row in range(first, last + 1):
        low = min(max(south, row * size - radius), north)
        high = max(min(north, (row + 1) * size + radius), south)
        if low <= south and high >= north:
            ends = (strip.x, strip.to_x)
        else:
            ends = (strip.x + dx * (low - strip.y) / dy, strip.x + dx * (high - strip.y) / dy)
        for column in range(floor((min(ends) - radius) / size), floor((max(ends) + radius) / size) + 1):
            yield column, row
            yielded += 1
            if yielded > _MAX_CELLS:
                return
