"""Order, duplicates and gaps in a numbered stream of messages."""

from __future__ import annotations

from enum import Enum, auto


class Arrival(Enum):
    """What a sequence number says about its message."""

    NEXT = auto()
    DUPLICATE = auto()
    GAP = auto()


class Sequence:
    """Tells new messages from old ones. `last` is the newest number admitted, -1 before the first."""

    __slots__ = ("last",)

    def __init__(self, last: int = -1) -> None:
        self.last = last

    def admit(self, seq: int) -> Arrival:
        """Classify `seq`; a message after a gap is admitted all the same."""
        if seq <= self.last:
            return Arrival.DUPLICATE
        arrival = Arrival.NEXT if seq == self.last + 1 else Arrival.GAP
        self.last = seq
        return arrival
