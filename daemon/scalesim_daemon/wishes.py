"""Whose prefixes an engine may hold, and its eviction order, as the planner asks for them: from the near end. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import count, islice
from typing import Any, TypeVar, overload

from scalesim_daemon.plan import Wish

T = TypeVar("T")
Place = tuple[float | str, ...]


class Wishes(Collection[Wish]):
    """Agents with a known prefix of whom a request is foreseen or under way, the nearest first."""

    def __init__(self, wishes: Iterable[Wish]) -> None:
        self._wishes = tuple(sorted(wishes, key=lambda wish: wish.seconds))
        self._of = {wish.agent: wish for wish in self._wishes}
        self._places = {wish.agent: place for place, wish in enumerate(self._wishes)}

    @property
    def nearest(self) -> float:
        """How far the nearest of those is who have no request under way; infinity where there is none."""
        return next((wish.seconds for wish in self._wishes if not wish.held), math.inf)

    def of(self, agent: str) -> Wish | None:
        """Return one agent's, None where there is none."""
        return self._of.get(agent)

    def place(self, agent: str) -> Place:
        """Return what is smaller for who is nearer. Raises `KeyError` for who has no wish."""
        return (self._places[agent],)

    def lacking(self) -> Iterator[Wish]:
        """Yield those who are foreseen, have no request under way, and lack blocks of their prefix, the nearest
        first."""
        for wish in self._wishes:
            if wish.seconds < math.inf and not wish.held and wish.resident < wish.blocks:
                yield wish

    def __iter__(self) -> Iterator[Wish]:
        return iter(self._wishes)

    def __len__(self) -> int:
        return len(self._wishes)

    def __contains__(self, wish: object) -> bool:
        return wish in self._wishes


class Drawn(Sequence[T]):
    """A sequence whose elements come from an iterator, each when it is first asked for."""

    def __init__(self, source: Iterator[T]) -> None:
        self._source = source
        self._drawn: list[T] = []

    def __iter__(self) -> Iterator[T]:
        for place in count():
            if place == len(self._drawn):
                self._drawn.extend(islice(self._source, 1))
            if place == len(self._drawn):
                return
            yield self._drawn[place]

    def __len__(self) -> int:
        return len(self._all())

    @overload
    def __getitem__(self, place: int) -> T: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[T]: ...
    def __getitem__(self, place: Any) -> Any:
        return self._all()[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def _all(self) -> list[T]:
        self._drawn.extend(self._source)
        return self._drawn
