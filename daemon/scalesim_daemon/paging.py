"""The one way of paging: `offset` and `limit`, answered with the `total`; and how a page is found among very many
things without keeping the event loop from others."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import islice
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query

LARGEST_PAGE = 1000
LARGEST_NUMBER = 2**63 - 1
CHUNK = 250

Offset = Annotated[int, Query(ge=0, le=LARGEST_NUMBER)]
Limit = Annotated[int, Query(ge=1, le=LARGEST_PAGE)]
Thing = TypeVar("Thing")
Ranked = TypeVar("Ranked", bound=tuple[Any, ...])


async def in_turns(things: Iterable[Thing]) -> AsyncIterator[Sequence[Thing]]:
    """Yield them some hundred at a time; whatever waits for the event loop gets its turn in between. What they come
    from may change meanwhile: it must be a copy."""
    left = iter(things)
    while batch := list(islice(left, CHUNK)):
        yield batch
        await asyncio.sleep(0)


class First(Generic[Ranked]):
    """The first `count` of all tuples that are added; the last of them where it is `descending`. No more than about
    twice as many are kept."""

    def __init__(self, count: int, *, descending: bool = False) -> None:
        self._count = count
        self._choose = heapq.nlargest if descending else heapq.nsmallest
        self._kept: list[Ranked] = []

    def add(self, ranked: Iterable[Ranked]) -> None:
        """Take in more of them."""
        self._kept += ranked
        if len(self._kept) > 2 * self._count + CHUNK:
            self._kept = self.ordered()

    def ordered(self) -> list[Ranked]:
        """Return them in their order."""
        return self._choose(self._count, self._kept)
