"""The agents of one stream by number, and columns of what is kept of them: so an agent costs a few bytes in each."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, MutableSequence, Set
from typing import Any

_LEFT = 8


class Roster:
    """Gives each agent a number. Whoever keeps something of the agents has a column, in which it stands under that.

    A column is as long as there are numbers, and holds its `empty` value for agents of whom nothing was put there. Who
    has left and comes back has the same number; it goes to another once all who may have noted it were told.
    """

    __slots__ = ("_called", "_columns", "_free", "_left", "_noting", "_numbers", "find", "names")

    def __init__(self) -> None:
        self.names: list[str] = []
        """The agents by their numbers."""
        self._numbers: dict[str, int] = {}
        self.find = self._numbers.get
        """Return an agent's number, None where it has none."""
        self._columns: dict[str, tuple[MutableSequence[Any], Any]] = {}
        self._noting: list[Callable[[Set[int]], None]] = []
        self._left: dict[str, int] = {}
        self._free: list[int] = []
        self._called = self.column("called", "d", -math.inf)

    def __len__(self) -> int:
        """Return how many agents have a number."""
        return len(self._numbers)

    def enter(self, agent: str) -> int:
        """Return an agent's number, and give it one where it has none."""
        number = self._numbers.get(agent)
        if number is not None:
            return number
        if agent in self._left:
            number = self._left.pop(agent)
        elif self._free:
            number = self._free.pop()
            self.names[number] = agent
        else:
            number = len(self.names)
            self.names.append(agent)
            for column, empty in self._columns.values():
                column.append(empty)
        self._numbers[agent] = number
        return number

    def leave(self, agent: str) -> None:
        """Empty all that is kept of an agent, if anything is."""
        number = self._numbers.pop(agent, None)
        if number is None:
            return
        for column, empty in self._columns.values():
            column[number] = empty
        self._left[agent] = number
        if len(self._left) > len(self._numbers) + _LEFT:
            left = set(self._left.values())
            for drop in self._noting:
                drop(left)
            for number in left:
                self.names[number] = ""
            self._free += self._left.values()
            self._left.clear()

    def call(self, agent: str, now: float) -> None:
        """Note that an agent was invoked at a clock value, unless a later one is known."""
        number = self.enter(agent)
        if now > self._called[number]:
            self._called[number] = now

    def never_called(self, agent: str) -> None:
        """Forget when an agent was invoked."""
        number = self.find(agent)
        if number is not None:
            self._called[number] = -math.inf

    def last_call(self, agent: str) -> float:
        """Return the clock value of an agent's last invocation, minus infinity where it has none."""
        number = self.find(agent)
        return -math.inf if number is None else self._called[number]

    def column(self, name: str, typecode: str, empty: float) -> array[Any]:
        """Return a new column of numbers; one of this name that is there already is emptied, for who begins anew."""
        fresh = array(typecode, [empty]) * len(self.names)
        kept, _ = self._columns.setdefault(name, (fresh, empty))
        assert isinstance(kept, array)
        kept[:] = fresh
        return kept

    def objects(self, name: str) -> list[Any]:
        """Return a new column of objects, empty where it holds None."""
        column: list[Any] = [None] * len(self.names)
        self._columns[name] = column, None
        return column

    def tell_who_left(self, drop: Callable[[Set[int]], None]) -> None:
        """Have `drop` called with the numbers of agents that have left, before others get them."""
        self._noting.append(drop)
