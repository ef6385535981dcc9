"""What operators have asked for that takes its time: prefetches and evictions, from the request to the end. Bounded."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from uuid import uuid4

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.plan import Action

MOST_OPEN = 256
KEPT = 1000


class State(StrEnum):
    """How far an operation is. `WAITING` and `RUNNING` ones may still come to something."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class Operation:
    """One item of memory to bring into an engine (`LOAD`) or out of it (`EVICT`). Times are wall seconds; past `until`
    it is given up. `detail` says for people what it waits for, or what came of it."""

    id: str
    action: Action
    kind: MemoryKind
    key: str
    engine: str
    asked_at: float
    until: float
    state: State = State.WAITING
    detail: str = ""
    ended_at: float | None = None

    @property
    def open(self) -> bool:
        """Whether it is not over."""
        return self.ended_at is None

    def end(self, state: State, detail: str, now: float) -> None:
        """It is over."""
        self.state, self.detail, self.ended_at = state, detail, now


class TooManyOperations(Exception):
    """As many operations are open as may be."""


class Operations:
    """The open operations and the last of those that are over, `KEPT` at most."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Operation] = OrderedDict()
        self._open: dict[str, Operation] = {}

    def start(
        self, action: Action, kind: MemoryKind, key: str, engine: str, now: float, within: float
    ) -> Operation:
        """Return a new operation, or the open one that is about the same. Raises `TooManyOperations`."""
        for known in self.open():
            if (known.action, known.kind, known.key, known.engine) == (action, kind, key, engine):
                known.until = max(known.until, now + within)
                return known
        if len(self._open) >= MOST_OPEN:
            raise TooManyOperations(
                f"{MOST_OPEN} operations are open: wait until some are over, or cancel them"
            )
        operation = Operation(uuid4().hex, action, kind, key, engine, now, now + within)
        self._known[operation.id] = self._open[operation.id] = operation
        while len(self._known) > KEPT:
            del self._known[next(one.id for one in self._known.values() if not one.open)]
        return operation

    def open(self) -> Iterator[Operation]:
        """Yield those that are not over, the oldest first."""
        for operation in list(self._open.values()):
            if operation.open:
                yield operation
            else:
                del self._open[operation.id]

    def get(self, identity: str) -> Operation | None:
        """Return one by its id, None where it isn't known any more."""
        return self._known.get(identity)

    def all(self) -> list[Operation]:
        """Return all that are known, the latest first."""
        return list(reversed(self._known.values()))
