"""What the estimators of a stream said of each agent lately, and who is to be asked again because it has lapsed."""

from __future__ import annotations

import math
import sys
from array import array
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import NamedTuple

from scalesim_estimators.base import Estimate
from scalesim_estimators.calendar import Calendar
from scalesim_estimators.roster import Roster

_CHANGES_KEPT = 8
_STALE = 64
# What was said of so many at one clock value takes 3 MB.
_SAID_KEPT = 16384
_SURE = 250
"""A confidence is kept as so many parts of 1."""

Said = tuple[int, list[Estimate | None]]
"""What one estimator says of some agents, in their order: its place among the estimators, and its estimates."""


class Row(NamedTuple):
    """From clock value `since` on, what the estimators said of one agent, in their order: dues, infinity for nothing,
    and confidences in 250ths."""

    since: float
    dues: tuple[float, ...]
    sure: bytes

    def confidence(self, index: int) -> float:
        """Return the confidence of one of them, in 0..1."""
        return self.sure[index] / _SURE


UNKNOWN = Row(math.nan, (), b"")


class Notes:
    """Per agent the last 8 changes of what so many `estimators` said, and the nearest of the dues that hold. `day` is
    what one day is in the calendar of these, in clock units.

    Nobody asks for what was held long ago: of nearly all agents the newest change and the one before are enough. They
    lie in columns; what is older, and may still be asked for, is packed. What holds at one clock value is what is said
    last: it is put there when the clock goes on, or so many agents were spoken of that it takes much memory.
    """

    __slots__ = (
        "_agents",
        "_before",
        "_estimators",
        "_lost",
        "_newest",
        "_now",
        "_older",
        "_packing",
        "_passing",
        "_places",
        "_said",
        "_silence",
        "_soonest",
        "oldest",
    )

    def __init__(self, agents: Roster, estimators: int, day: float) -> None:
        self._agents = agents
        self._estimators = estimators
        self._places: list[int] = []
        """Which estimators have ever said anything: they have columns."""
        self._newest, self._before = _Rows(agents, "newest"), _Rows(agents, "before")
        self._older: list[bytes | None] = agents.objects("older")
        self._packing = Struct(f"={1 + estimators}d{estimators}s")
        self._lost = agents.column("older lost", "B", 0)
        """Whether rows were dropped that may be asked for."""
        self._silence = Row(-math.inf, (math.inf,) * estimators, bytes(estimators))
        self._soonest = agents.column("soonest", "d", math.inf)
        self._passing: Calendar[int] = Calendar(day, self._soonest.__getitem__)
        self.oldest = math.inf
        """Nobody will ask for what was held before that."""
        self._now = -math.inf
        self._said: dict[int, dict[str, Estimate | None]] = {}
        """Per place of an estimator what it said at clock value `now`, by agent. The first has all of whom any did."""

    def note(self, agents: Sequence[str], said: Sequence[Said], now: float) -> None:
        """Note what is said of some agents from `now` on: nothing by those of whom nothing is `said`."""
        if now != self._now or len(next(iter(self._said.values()), ())) >= _SAID_KEPT:
            self._settle()
            self._now = now
        kept = self._said
        for place, estimates in said:
            if place not in kept:
                kept[place] = {}
            kept[place].update(zip(agents, estimates, strict=True))
        if not kept or len(kept) > len(said):
            for place in (kept.keys() or {0}) - {place for place, _ in said}:
                kept.setdefault(place, {}).update(dict.fromkeys(agents))

    def forget(self, agent: str) -> None:
        """Drop what was said of an agent that leaves."""
        for said in self._said.values():
            said.pop(agent, None)

    def held(self, agent: str, before: float = math.inf) -> list[Row]:
        """Return what is noted of an agent, the newest first; what was said from `before` on may be missing."""
        if self._now < before:
            self._settle()
        number = self._agents.find(agent)
        if number is None:
            return [self._silence]
        rows = [self._row(lately, number) for lately in (self._newest, self._before) if lately.has(number)]
        older = [self._unpacked(packed) for packed in self._packing.iter_unpack(self._older[number] or b"")]
        return [*rows, *reversed(older), *([] if self._lost[number] else [self._silence])]

    def lapsed(self, earliest: float, most: int = sys.maxsize) -> list[str]:
        """Return up to `most` agents of which the nearest due lies before `earliest`, each once."""
        self._settle()
        passed = self._passing.passed(earliest, most)
        for number in passed:
            self._soonest[number] = math.inf
        return [self._agents.names[number] for number in passed]

    def may_have_lapsed(self, earliest: float) -> bool:
        """Whether there may be agents whose nearest due lies before `earliest`."""
        return self._passing.may_have_passed(earliest)

    def newest(self) -> Iterator[tuple[str, tuple[float, ...]]]:
        """Yield the dues that hold, of all agents of which something is noted."""
        self._settle()
        for number, agent in enumerate(self._agents.names):
            if self._newest.has(number):
                yield agent, self._row(self._newest, number).dues

    def _settle(self) -> None:
        """Put where it stays what was said at the last clock value."""
        if not self._said:
            return
        said, self._said = self._said, {}
        agents = list(next(iter(said.values())))
        columns = [(place, list(map(told.get, agents))) for place, told in said.items()]
        self._hear(columns)
        now, find, soonest_of = self._now, self._agents.find, self._soonest
        newest, before, since_of, watch = self._newest, self._before, self._newest.since, self._passing.put
        for agent, estimates in zip(agents, self._rows(len(agents), columns), strict=True):
            dues = [math.inf if one is None else one.due for one in estimates]
            soonest, number = min(dues), find(agent)
            if number is None:
                if soonest == math.inf:
                    continue
                number = self._agents.enter(agent)
            if soonest_of[number] != soonest:
                soonest_of[number] = soonest
                if soonest < math.inf:
                    watch(number, soonest)
            since = since_of[number]
            if since == now:
                if before.says(number, dues):
                    newest.copy(number, before)
                    self._uncover(number)
                    continue
            elif since < math.inf:
                if newest.says(number, dues):
                    continue
                self._cover(number, since)
            newest.put(number, now, dues, estimates)
        if len(self._passing) > 2 * len(self._agents) + _STALE:
            self._passing.refill((number, due) for number, due in enumerate(soonest_of) if due < math.inf)

    def _rows(self, number: int, columns: Sequence[Said]) -> Iterator[tuple[Estimate | None, ...]]:
        """Return of so many agents what all estimators say."""
        said = dict(columns)
        silence: Sequence[None] = [None] * number
        return zip(*(said.get(place, silence) for place in range(self._estimators)), strict=True)

    def _hear(self, said: Sequence[Said]) -> None:
        """Give those columns who speak for the first time."""
        for place, estimates in said:
            if place not in self._places and any(estimates):
                self._places.append(place)
                for rows in (self._newest, self._before):
                    rows.widen(place, self._agents)

    def _cover(self, number: int, since: float) -> None:
        """Another row is to come on top of the newest, which holds `since` then."""
        rows, oldest = b"", self.oldest
        if self._before.has(number) and since >= oldest:
            kept, size = self._older[number] or b"", self._packing.size
            before = self._row(self._before, number)
            rows = kept + self._packing.pack(before.since, *before.dues, before.sure)
            while len(rows) > size and self._packing.unpack_from(rows, size)[0] < oldest:
                rows = rows[size:]
            if len(rows) > (_CHANGES_KEPT - 2) * size:
                rows = rows[size:]
                self._lost[number] = 1
        self._older[number] = rows or None
        self._before.copy(number, self._newest)

    def _uncover(self, number: int) -> None:
        """The row before the newest is gone: the newest of the older ones takes its place."""
        older = self._older[number]
        if older is None:
            self._before.since[number] = math.inf
            return
        row = self._unpacked(self._packing.unpack_from(older, len(older) - self._packing.size))
        self._older[number] = older[: -self._packing.size] or None
        self._before.fill(number, row)

    def _row(self, rows: _Rows, number: int) -> Row:
        dues, sure = [math.inf] * self._estimators, bytearray(self._estimators)
        for place, column, shares in rows.columns:
            dues[place], sure[place] = column[number], shares[number]
        return Row(rows.since[number], tuple(dues), bytes(sure))

    def _unpacked(self, packed: tuple[float | bytes, ...]) -> Row:
        since, *dues, sure = packed
        return Row(since, tuple(dues), sure)  # type: ignore[arg-type]  # Struct tells no types


def held_before(rows: Sequence[Row], clock: float) -> Row:
    """Return what was held just before `clock`, `UNKNOWN` where that is no longer known; the newest row comes first."""
    return next((row for row in rows if row.since < clock), UNKNOWN)


class _Rows:
    """One row of each agent, by the estimators that speak: `since` is infinity where there is none."""

    __slots__ = ("_name", "columns", "since")

    def __init__(self, agents: Roster, name: str) -> None:
        self._name = name
        self.since: array[float] = agents.column(f"{name} since", "d", math.inf)
        self.columns: list[tuple[int, array[float], array[int]]] = []
        """Of each who speaks its place, the dues and the confidences."""

    def widen(self, place: int, agents: Roster) -> None:
        """Make room for one more estimator."""
        dues = agents.column(f"{self._name} due {place}", "d", math.inf)
        self.columns.append((place, dues, agents.column(f"{self._name} sure {place}", "B", 0)))

    def has(self, number: int) -> bool:
        """Whether there is a row of the agent."""
        return self.since[number] < math.inf

    def says(self, number: int, dues: Sequence[float]) -> bool:
        """Whether there is a row of the agent, and its dues are these."""
        for place, column, _ in self.columns:
            if column[number] != dues[place]:
                return False
        return self.has(number)

    def put(
        self, number: int, since: float, dues: Sequence[float], estimates: Sequence[Estimate | None]
    ) -> None:
        """Let this be the agent's row."""
        self.since[number] = since
        for place, column, shares in self.columns:
            column[number], estimate = dues[place], estimates[place]
            shares[number] = 0 if estimate is None else round(_SURE * estimate.confidence)

    def fill(self, number: int, row: Row) -> None:
        """Let this be the agent's row."""
        self.since[number] = row.since
        for place, column, shares in self.columns:
            column[number], shares[number] = row.dues[place], row.sure[place]

    def copy(self, number: int, other: _Rows) -> None:
        """Let the agent's row be that of others."""
        self.since[number] = other.since[number]
        for (_, column, shares), (_, its, theirs) in zip(self.columns, other.columns, strict=True):
            column[number], shares[number] = its[number], theirs[number]
