"""In which order a simulated memory gives up what nobody uses: by its own clock, or by due as the plug-ins do."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import count
from typing import Protocol

from scalesim_adapters.dueorder import DueOrder
from scalesim_adapters.dues import DueTable


class Order(Protocol):
    """Keys of what can go; `first` is the next to go."""

    def put(self, key: str) -> None:
        """Add the key as the newest, or make it the newest."""
        ...

    def discard(self, key: str) -> None:
        """Remove the key, if it is there."""
        ...

    def first(self) -> str | None:
        """Return the next to go; None where there is none."""
        ...


class ByRecency:
    """What was put longest ago goes first."""

    def __init__(self) -> None:
        self._keys: OrderedDict[str, None] = OrderedDict()

    def put(self, key: str) -> None:
        """Add the key as the newest, or make it the newest."""
        self._keys[key] = None
        self._keys.move_to_end(key)

    def discard(self, key: str) -> None:
        """Remove the key, if it is there."""
        self._keys.pop(key, None)

    def first(self) -> str | None:
        """Return what was put longest ago; None where there is nothing."""
        return next(iter(self._keys), None)

    def __iter__(self) -> Iterator[str]:
        """Yield the keys, the next to go first."""
        return iter(self._keys)


class ByDue:
    """What is due last goes first, of equals the one put last; before all what isn't due at all, longest ago first."""

    def __init__(self, table: DueTable) -> None:
        self._order = DueOrder(table)
        self._serial = count()

    def put(self, key: str) -> None:
        """Add the key as the newest, or make it the newest."""
        serial = next(self._serial)
        self._order.put(key, serial, serial)

    def discard(self, key: str) -> None:
        """Remove the key, if it is there."""
        self._order.discard(key)

    def first(self) -> str | None:
        """Return the farthest as of now; None where there is nothing."""
        self._order.refresh()
        return self._order.farthest()
