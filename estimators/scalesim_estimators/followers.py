"""Who is usually invoked after whom, and how long after."""

from __future__ import annotations

from collections.abc import Iterator, Set
from struct import Struct

from scalesim_estimators.roster import Roster

_KEPT = 8
_ENTRY = Struct("=IBBff")
"""A follower's number, how often it followed, how much of that is doubtful, how long after, and by how much that
varies."""
_LONGEST = 1e38
"""Lags are kept as floats of 4 bytes, in clock units."""


class Followers:
    """Per agent its 8 most frequent followers, by space saving (A. Metwally et al., ICDT 2005), packed: most agents
    come to nothing here, and all have some."""

    __slots__ = ("_packed",)

    def __init__(self, agents: Roster) -> None:
        self._packed: list[bytes | None] = agents.objects("followers")
        agents.tell_who_left(self._drop)

    def note(self, leader: int, follower: int, lag: float) -> None:
        """An agent was invoked `lag` clock units after the leader's last invocation, and not since."""
        lag = min(lag, _LONGEST)
        packed = self._packed[leader] or b""
        for place, (number, count, doubtful, usual, spread) in enumerate(_ENTRY.iter_unpack(packed)):
            if number == follower:
                at, off = place * _ENTRY.size, lag - usual
                entry = _ENTRY.pack(
                    number, count + 1, doubtful, usual + off / 4, spread + (abs(off) - spread) / 4
                )
                self._packed[leader] = packed[:at] + entry + packed[at + _ENTRY.size :]
                return
        inherited = 0
        if len(packed) == _KEPT * _ENTRY.size:
            entries = list(_ENTRY.iter_unpack(packed))
            rarest = min(range(_KEPT), key=lambda place: entries[place][1:])
            inherited, at = entries[rarest][1], rarest * _ENTRY.size
            packed = packed[:at] + packed[at + _ENTRY.size :]
        self._packed[leader] = packed + _ENTRY.pack(follower, inherited + 1, inherited, lag, 0.0)

    def usual(self, leader: int, least: float) -> Iterator[tuple[int, float]]:
        """Yield who followed at least so often, and how long after, where that is nearly always the same."""
        for number, count, doubtful, lag, spread in _ENTRY.iter_unpack(self._packed[leader] or b""):
            if count - doubtful >= least and spread <= max(1.0, lag / 4):
                yield number, lag

    def halve(self, leader: int) -> None:
        """Let what was count half of what is to come."""
        entries = _ENTRY.iter_unpack(self._packed[leader] or b"")
        self._packed[leader] = b"".join(
            _ENTRY.pack(number, count // 2, doubtful // 2, lag, spread)
            for number, count, doubtful, lag, spread in entries
        )

    def of(self, leader: int) -> int:
        """Return how many followers of an agent are known."""
        return len(self._packed[leader] or b"") // _ENTRY.size

    def _drop(self, left: Set[int]) -> None:
        for leader, packed in enumerate(self._packed):
            if packed:
                entries = _ENTRY.iter_unpack(packed)
                self._packed[leader] = b"".join(_ENTRY.pack(*one) for one in entries if one[0] not in left)
