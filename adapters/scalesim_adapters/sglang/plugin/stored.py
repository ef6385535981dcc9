"""Which pages of KV a storage of fixed size holds in which slots, and whose goes when another needs room. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from scalesim_adapters.dues import DueTable
from scalesim_adapters.tierranking import Ranking

# Users are known of that many pages, or of twice as many as exist, before those of vanished pages are forgotten.
REMEMBERED = 16384


class StoredPages:
    """`count` slots, of which `held` ones have content already; pages by key.

    The page whose users call latest goes first, what no session is known to have used before all, and of one agent's
    the tail of its prompt first: a page counts only with all before it. Where no dues are heard, the page goes whose
    users have called longest ago.
    """

    def __init__(self, count: int, held: Mapping[int, bytes], table: DueTable) -> None:
        self.ranking = Ranking(table)
        self._slots: dict[bytes, int] = {}
        self._remembered = REMEMBERED
        for slot, key in held.items():
            if key not in self._slots:
                self._slots[key] = slot
                self.ranking.add(key)
        taken = set(self._slots.values())
        self._free = [slot for slot in range(count) if slot not in taken]

    def __len__(self) -> int:
        """Return how many pages are held."""
        return len(self._slots)

    def slot(self, key: bytes) -> int | None:
        """Return the slot of a page, None where it isn't held."""
        return self._slots.get(key)

    def used(self, session: str, request: str, keys: Sequence[bytes]) -> None:
        """A request of the session has a prompt of these pages, held or not, from its head on; said again, it has
        become longer."""
        self.ranking.used(session, request, keys)
        self.touch(keys)
        if len(self.ranking) > self._remembered:
            self.ranking.forget(lambda key: key not in self._slots)
            self._remembered = max(REMEMBERED, 2 * len(self.ranking))

    def touch(self, keys: Sequence[bytes]) -> None:
        """These pages were used now, from a prompt's head on."""
        for key in reversed(keys):
            if key in self._slots:
                self.ranking.remove(key)
                self.ranking.add(key)

    def room(self, key: bytes, wall: float) -> int | None:
        """Return a slot for a page that isn't held, and hold it there from now on; None where every other page is
        needed sooner. `wall` is the monotonic time in seconds."""
        self.ranking.look(wall)
        if not self._free:
            victim = self.ranking.first()
            if victim is None or self._keeps(victim, key):
                return None
            self.drop([victim])
        slot = self._slots[key] = self._free.pop()
        self.ranking.add(key)
        return slot

    def drop(self, keys: Iterable[bytes]) -> None:
        """These pages are held no longer."""
        for key in keys:
            self.ranking.remove(key)
            self._free.append(self._slots.pop(key))

    def clear(self) -> None:
        """Nothing is held any more."""
        self.drop(list(self._slots))

    def _keeps(self, victim: bytes, key: bytes) -> bool:
        return self.ranking.outdated(key) or self.ranking.distance(victim) < self.ranking.distance(key)
