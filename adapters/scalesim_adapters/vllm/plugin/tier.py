"""What a host tier's slots hold, and what moves when blocks leave the device. Pure.

The tier is exclusive as far as it has to be: a block moves to the host when the device evicts it, and its slot is the
first to be given away once it is back on the device. Where the tier is full and what takes its place on the device
comes from the host, the two change places; while there is room the copy stays, and is not written again. What only old
requests had is not kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from scalesim_adapters.dues import DueTable
from scalesim_adapters.tierranking import Ranking

# Users are known of that many blocks, or of twice as many as exist, before those of vanished blocks are forgotten.
REMEMBERED = 16384


@dataclass(frozen=True, slots=True)
class Move:
    """The content of device block `block`, which is `key`'s, goes to `slot`. In an `exchange` what the slot holds goes
    to the device block at the same time."""

    block: int
    slot: int
    key: bytes
    exchange: bool = False


@dataclass(slots=True)
class Moves:
    """What one step moves to the host, in this order, and which keys the host holds no longer."""

    moves: list[Move] = field(default_factory=list)
    dropped: list[bytes] = field(default_factory=list)


class Tier:
    """`count` slots, of which `held` ones have content already. `on_device(key)` tells whether the device's prefix
    cache has a block; keys are the engine's block hashes."""

    def __init__(
        self, count: int, held: Mapping[int, bytes], table: DueTable, on_device: Callable[[bytes], bool]
    ) -> None:
        self.count = count
        self.ranking = Ranking(table)
        self._on_device = on_device
        self._slots: dict[bytes, int] = {}
        self._spare: dict[bytes, None] = {}  # also on the device
        self._reading: dict[int, bytes] = {}
        self._leaving: set[bytes] = set()
        self._remembered = REMEMBERED
        for slot, key in held.items():
            if key not in self._slots:
                self._slots[key] = slot
                self.ranking.add(key)
        taken = set(self._slots.values())
        self._free = [slot for slot in range(count) if slot not in taken]

    def __len__(self) -> int:
        """Return how many blocks the host holds."""
        return len(self._slots)

    def has(self, key: bytes) -> bool:
        """Whether the host holds the block."""
        return key in self._slots

    def leaves(self, key: bytes) -> bool:
        """Whether the block is on its way to the device and gives up its slot."""
        return key in self._leaving

    def load(self, keys: Iterable[bytes]) -> list[int]:
        """Return the slots of blocks that are about to be read; they stay until `loaded`."""
        slots = []
        for key in keys:
            self._spare.pop(key, None)
            self.ranking.remove(key)
            slot = self._slots[key]
            self._reading[slot] = key
            slots.append(slot)
        return slots

    def loaded(self, keys: Iterable[bytes]) -> None:
        """The blocks have been read."""
        for key in keys:
            self._leaving.discard(key)
            if self._is_read(key):
                del self._reading[self._slots[key]]
                self._spare[key] = None

    def computed(self, keys: Iterable[bytes]) -> None:
        """The device has these blocks now, whether or not the host does."""
        for key in keys:
            if key in self._slots and not self._is_read(key):
                self.ranking.remove(key)
                self._spare[key] = None

    def evicted(self, gone: Sequence[tuple[int, bytes]], arriving: Mapping[int, int], wall: float) -> Moves:
        """The device has given away blocks that held `gone`, as (block, key); into some of them what lies in a slot is
        being loaded: `arriving` gives the slot by block. Return what to save, the nearest first. `wall` is the
        monotonic time in seconds."""
        self.ranking.look(wall)
        result = Moves()
        homeless: list[tuple[float, int, bytes]] = []
        # The device gives away a prompt's tail first. Its head is worth more: it counts without the tail.
        for block, key in reversed(gone):
            if self._on_device(key) or self._keep(key) or self.ranking.outdated(key):
                continue
            slot = arriving.get(block)
            if slot in self._reading and not self._free:
                result.dropped.append(self._give_up(slot))
                self._slots[key] = slot
                result.moves.append(Move(block, slot, key, exchange=True))
            else:
                homeless.append((self.ranking.distance(key), block, key))
        for _, block, key in sorted(homeless, key=lambda found: found[0]):
            # The device may have had it twice.
            room = None if key in self._slots else self._room_for(key, result.dropped)
            if room is not None:
                self._slots[key] = room
                result.moves.append(Move(block, room, key))
        for move in reversed(result.moves):
            self.ranking.add(move.key)
        self._forget()
        return result

    def clear(self) -> None:
        """The host holds nothing any more."""
        for key in self._slots:
            self.ranking.remove(key)
        self._slots.clear()
        self._spare.clear()
        self._reading.clear()
        self._leaving.clear()
        self._free = list(range(self.count))

    def _keep(self, key: bytes) -> bool:
        """Tell whether the host has the block already: then that copy is the only one now."""
        if key in self._spare:
            del self._spare[key]
            self.ranking.add(key)
        return key in self._slots

    def _is_read(self, key: bytes) -> bool:
        return key in self._slots and self._reading.get(self._slots[key]) == key

    def _give_up(self, slot: int) -> bytes:
        """Take a slot from the block that is being read from it, and return that."""
        key = self._reading.pop(slot)
        del self._slots[key]
        self._leaving.add(key)
        return key

    def _room_for(self, key: bytes, dropped: list[bytes]) -> int | None:
        if self._free:
            return self._free.pop()
        victim = self._spare_one() or self.ranking.first()
        if victim is None or not self._gives_way(victim, key):
            return None
        self.ranking.remove(victim)
        self._spare.pop(victim, None)
        dropped.append(victim)
        return self._slots.pop(victim)

    def _spare_one(self) -> bytes | None:
        while self._spare:
            key = next(iter(self._spare))
            if self._on_device(key):
                return key
            self._keep(key)
        return None

    def _gives_way(self, victim: bytes, key: bytes) -> bool:
        # Equal ones give way, too: what has been in the tier longest is the tail of a prompt, the newcomer its head.
        return victim in self._spare or self.ranking.distance(victim) >= self.ranking.distance(key)

    def _forget(self) -> None:
        if len(self.ranking) > self._remembered:
            self.ranking.forget(lambda key: key not in self._slots and not self._on_device(key))
            self._remembered = max(REMEMBERED, 2 * len(self.ranking))
