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


class Dues(dict[Estimate, Due]):
    """What a source foresees on its clock, by what it estimates: many agents are due alike, and then it is the same
    object, which is neither made nor compared for each."""

    __slots__ = ("clock", "source")

    def __init__(self, clock: StreamClock, source: str) -> None:
        super().__init__()
        self.clock, self.source = clock, source

    def __missing__(self, estimate: Estimate) -> Due:
        if len(self) == _SHARED:
            self.clear()
        due = self[estimate] = Due(*estimate, self.clock, self.source)
        return due


class DueRecord(NamedTuple):
    """What Redis shows of one agent: `due` is a value of its stream's clock, `items` name its memory."""

    due: float
    clock: ClockKind
    confidence: float
    basis: str
    items: Sequence[str] = ()


class DueBoard:
    """Keeps one due per agent and stream; an agent's own is the nearest of them."""

    def __init__(self) -> None:
        self._dues: dict[str, Due | tuple[Due, ...]] = {}
        """Per agent its due; of the few of whom several sources speak, one of each."""

    def put(self, agent: str, source: str, due: Due | None) -> bool:
        """Set what `source` estimates for the agent, None for nothing; return whether it was anything else before."""
        known = self._dues.get(agent)
        if known is None or (not isinstance(known, tuple) and known.source == source):
            # Nobody else speaks of it, as of nearly all agents.
            if known == due:
                return False
            if due is None:
                del self._dues[agent]
            else:
                self._dues[agent] = due
            return True
        told = self._told(agent)
        for place, before in enumerate(told):
            if before.source == source:
                if before == due:
                    return False
                now = (*told[:place], *(() if due is None else (due,)), *told[place + 1 :])
                break
        else:
            if due is None:
                return False
            now = (*told, due)
        if now:
            self._dues[agent] = now[0] if len(now) == 1 else now
        else:
            del self._dues[agent]
        return True

    def put_all(self, agents: Sequence[str], source: str, dues: Sequence[Due | None]) -> list[str]:
        """Set what `source` estimates for some agents, in their order; return of whom it was anything else before."""
        board, put = self._dues, self.put
        changed = []
        for agent, known, due in zip(agents, map(board.get, agents), dues, strict=True):
            if known is due:
                continue
            if type(known) is Due and due is not None and known.source == source:
                if known != due:
                    board[agent] = due
                    changed.append(agent)
            elif put(agent, source, due):
                changed.append(agent)
        return changed

    def get(self, agent: str) -> Due | None:
        """Return the agent's nearest due, None where no invocation is foreseen."""
        told = self._dues.get(agent)
        return min(told, key=_seconds) if isinstance(told, tuple) else told

    def nearest(self, agent: str) -> tuple[str, Due] | None:
        """Return the agent's nearest due and the source whose it is, None where no invocation is foreseen."""
        due = self.get(agent)
        return None if due is None else (due.source, due)

    def told(self, agent: str) -> tuple[tuple[str, Due], ...]:
        """Return the dues that sources have for the agent, each with its source."""
        return tuple([(due.source, due) for due in self._told(agent)])

    def told_by(self, source: str, agent: str) -> Due | None:
        """Return the due that one source has for the agent, None where it foresees no invocation."""
        return next((due for due in self._told(agent) if due.source == source), None)

    def streams(self, agent: str) -> int:
        """Return how many sources have a due for the agent."""
        return len(self._told(agent))

    def seconds(self, agent: str) -> float:
        """Return the agent's distance in wall seconds, infinity where no invocation is foreseen."""
        due = self.get(agent)
        return math.inf if due is None else due.seconds

    def agents(self) -> KeysView[str]:
        """Return the agents that have a due."""
        return self._dues.keys()

    def __len__(self) -> int:
        """Return how many agents have a due."""
        return len(self._dues)

    def _told(self, agent: str) -> tuple[Due, ...]:
        told = self._dues.get(agent, ())
        return told if isinstance(told, tuple) else (told,)


def _seconds(due: Due) -> float:
    return due.seconds
