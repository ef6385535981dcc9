"""The due board: every agent's next invocation as its streams estimate it. Pure; a tick changes nothing."""

from __future__ import annotations

import math
from collections.abc import KeysView, Sequence
from typing import NamedTuple

import msgspec

from scalesim_client.events import ClockKind
from scalesim_daemon.clock import StreamClock
from scalesim_estimators import Estimate

OVERDUE = "overdue"
_SHARED = 1024


def overdue_after(clock: StreamClock) -> float:
    """Return how many clock units after its due an invocation is overdue: one step."""
    return clock.step


class Due(msgspec.Struct, frozen=True, gc=False):
    """What one source foresees of an agent: an estimate, with the clock that it is in. The board has one for nearly
    every agent: it is no larger than it has to be, and the garbage collector needn't look at it."""

    at: float
    confidence: float
    why: str
    clock: StreamClock
    source: str

    @property
    def estimate(self) -> Estimate:
        """The estimate, in the clock's units."""
        return Estimate(self.at, self.confidence, self.why)

    @property
    def overdue(self) -> bool:
        """Whether the invocation should have come more than a step ago: then the agent counts as far."""
        return self.at < self.clock.now - overdue_after(self.clock)

    @property
    def distance(self) -> float:
        """The invocation distance in the clock's units; infinity where it is overdue."""
        return math.inf if self.overdue else max(0.0, self.at - self.clock.now)

    @property
    def seconds(self) -> float:
        """The distance as wall seconds, by the clock's measured pace: comparable between clocks."""
        return self.distance * self.clock.pace

    def left(self, wall: float) -> float:
        """Return in how many wall seconds the invocation is to be expected, by the clock's pace: unlike the distance,
        this falls between two ticks too. It serves lead time, and orders nothing."""
        return max(0.0, self.seconds - self.clock.passed(wall))

    @property
    def basis(self) -> str:
        """Why, for people."""
        return f"{OVERDUE}: {self.why}" if self.overdue else self.why


class Dues(dict[Estimate | None, Due | None]):
    """What a source foresees on its clock, by what it estimates, None for nothing: many agents are due alike, and then
    it is the same object, which is neither made nor compared for each."""

    __slots__ = ("clock", "source")

    def __init__(self, clock: StreamClock, source: str) -> None:
        super().__init__()
        self.clock, self.source = clock, source

    def __missing__(self, estimate: Estimate | None) -> Due | None:
        if len(self) == _SHARED:
            self.clear()
        due = self[estimate] = None if estimate is None else Due(*estimate, self.clock, self.source)
        return due


class DueRecord(NamedTuple):
    """What Redis shows of one agent: `due` is a value of its stream's clock, `items` name its memory."""

    due: float
    clock: ClockKind
    confidence: float
    basis: str
    items: Sequence[str] = ()


class Place(msgspec.Struct, gc=False):
    """An agent's place on the board, by its key: its due, or one of each source where several speak of it."""

    key: str
    told: Due | tuple[Due, ...] | None = None


class DueBoard:
    """Keeps one due per agent and stream; an agent's own is the nearest of them."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        """Those at which there is a due."""

    def place(self, agent: str) -> Place:
        """Return an agent's place; a new one where no due is there."""
        return self._places.get(agent) or Place(agent)

    def seat(self, place: Place) -> None:
        """From now on this is its agent's place: what was told there is told here."""
        before = self._places.get(place.key)
        if before is not None:
            place.told = before.told
            self._places[place.key] = place

    def put(self, place: Place, source: str, due: Due | None) -> bool:
        """Set what `source` estimates for the agent, None for nothing; return whether it was anything else before."""
        told = _told(place)
        before = next((one for one in told if one.source == source), None)
        if before == due:
            return False
        if due is None:
            now = tuple([one for one in told if one is not before])
        else:
            now = tuple([due if one is before else one for one in told]) if before else (*told, due)
        place.told = now[0] if len(now) == 1 else now or None
        if place.told is None:
            del self._places[place.key]
        else:
            self._places[place.key] = place
        return True

    def put_all(self, places: Sequence[Place], source: str, dues: Sequence[Due | None]) -> list[str]:
        """Set what `source` estimates for some agents, in their order; return of whom it was anything else before."""
        put, seats = self.put, self._places
        changed = []
        for place, due in zip(places, dues, strict=True):
            known = place.told
            if known is due:
                continue
            if known is None:
                place.told = due
                seats[place.key] = place
                changed.append(place.key)
            elif type(known) is Due and due is not None and known.source == source:
                # Nobody else speaks of it, as of nearly all agents.
                if known.at != due.at or known != due:
                    place.told = due
                    changed.append(place.key)
            elif put(place, source, due):
                changed.append(place.key)
        return changed

    def get(self, agent: str) -> Due | None:
        """Return the agent's nearest due, None where no invocation is foreseen."""
        place = self._places.get(agent)
        if place is None:
            return None
        told = place.told
        return min(told, key=_seconds) if isinstance(told, tuple) else told

    def nearest(self, agent: str) -> tuple[str, Due] | None:
        """Return the agent's nearest due and the source whose it is, None where no invocation is foreseen."""
        due = self.get(agent)
        return None if due is None else (due.source, due)

    def told(self, agent: str) -> tuple[tuple[str, Due], ...]:
        """Return the dues that sources have for the agent, each with its source."""
        return tuple([(due.source, due) for due in self._all(agent)])

    def told_by(self, source: str, agent: str) -> Due | None:
        """Return the due that one source has for the agent, None where it foresees no invocation."""
        return next((due for due in self._all(agent) if due.source == source), None)

    def streams(self, agent: str) -> int:
        """Return how many sources have a due for the agent."""
        return len(self._all(agent))

    def seconds(self, agent: str) -> float:
        """Return the agent's distance in wall seconds, infinity where no invocation is foreseen."""
        due = self.get(agent)
        return math.inf if due is None else due.seconds

    def agents(self) -> KeysView[str]:
        """Return the agents that have a due."""
        return self._places.keys()

    def __len__(self) -> int:
        """Return how many agents have a due."""
        return len(self._places)

    def _all(self, agent: str) -> tuple[Due, ...]:
        place = self._places.get(agent)
        return () if place is None else _told(place)


def _told(place: Place) -> tuple[Due, ...]:
    told = place.told
    if isinstance(told, tuple):
        return told
    return () if told is None else (told,)


def _seconds(due: Due) -> float:
    return due.seconds
