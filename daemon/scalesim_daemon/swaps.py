"""When memory may change hands: one rule for prefixes, LoRAs and models. Pure.

What comes in must be nearer than what goes, by more than the exchange takes: estimates that jitter by less move nothing
back and forth. And it must be likely to pay: the seconds that it saves if it is called first, against those that are
lost if what goes is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from scalesim_daemon.worth import rent


class Item(Protocol):
    """Something that moves as a whole, as a LoRA and a model do."""

    @property
    def seconds(self) -> float:
        """How far its nearest agent's call is."""

    @property
    def bytes(self) -> int:
        """What it takes of the memory."""

    @property
    def held(self) -> bool:
        """Whether requests use it or wait for it."""

    @property
    def load_seconds(self) -> float:
        """What it takes to bring it in, and so what it saves to have it."""

    @property
    def chance(self) -> float:
        """How likely it is called before what is said to be farther."""


AnyItem = TypeVar("AnyItem", bound=Item)


def bar(seconds: float, swap: float) -> float:
    """Return beyond how many seconds a victim gives way to what is called in `seconds`, where the exchange takes `swap`
    seconds. What is pinned, and so below 0, is wanted whatever that takes."""
    return seconds + swap if seconds >= 0 else seconds


def yields(victim: float, seconds: float, swap: float) -> bool:
    """Whether what is called in `victim` seconds gives way to what is called in `seconds`, where the exchange takes
    `swap` seconds."""
    return victim > bar(seconds, swap)


def pays(chance: float, saved: float, lost: float, price: float = 0.0) -> bool:
    """Whether a load that saves the seconds `saved` with the given chance, and else has cost those `lost`, is worth its
    own work, a second of which costs `price` seconds of others' work."""
    return chance * saved >= (1 - chance) * lost + price * saved


def leaving(item: AnyItem, there: Iterable[AnyItem], room: int) -> Sequence[AnyItem] | None:
    """Return which of those `there` go for `item`, the first to go first; None where there is no room even then, or it
    isn't worth it."""
    if room >= item.bytes:
        return []
    seconds = -math.inf if item.held else item.seconds
    yielding = [one for one in there if not one.held and yields(one.seconds, seconds, item.load_seconds)]
    going: list[AnyItem] = []
    for victim in sorted(yielding, key=_rent, reverse=True):
        if room >= item.bytes:
            break
        going.append(victim)
        room += victim.bytes
    for victim in going[::-1]:
        if room - victim.bytes >= item.bytes:
            going.remove(victim)
            room -= victim.bytes
    lost = sum(victim.load_seconds for victim in going)
    worth = item.held or pays(item.chance, item.load_seconds, lost)
    return going if room >= item.bytes and worth else None


def _rent(item: Item) -> tuple[float, float]:
    return rent(item.seconds, item.bytes, item.load_seconds), item.seconds
