"""Order, duplicates and gaps in a numbered stream of messages."""

from __future__ import annotations

from enum import Enum, auto


class Arrival(Enum):
    """What a sequence number says about its message."""

    NEXT = auto()
    DUPLICATE = auto()
    GAP = auto()


# Members of an enumeration are slow to look up in Python 3.11.
_NEXT, _DUPLICATE, _GAP = Arrival


class Sequence:
    """Tells new messages from old ones. `last` is the newest number admitted, -1 before the first."""

    __slots__ = ("last",)

    def __init__(self, last: int = -1) -> None:
        self.last = last

    def admit(self, seq: int) -> Arrival:
        """Classify `seq`; a message after a gap is admitted all the same."""
        last = self.last
        if seq <= last:
            return _DUPLICATE
        self.last = seq
        return _NEXT if seq == last + 1 else _GAP
