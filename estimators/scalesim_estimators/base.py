"""What every estimator gives and takes: events in, an estimate of the next invocation out."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, ClassVar, NamedTuple, Protocol

from scalesim_client.events import EVENT_TYPES, Event

Handlers = dict[type[Event], Callable[[Any, float], Collection[str]]]
"""Per type of event, what an estimator does with it: called with the event and its clock value."""


class Estimate(NamedTuple):
    """When an agent's next invocation is expected.

    `due` is an absolute value of the stream's clock (in its units), so that a tick changes no stored value;
    `confidence` is in 0..1; `basis` says in a few words why, for people: the estimator's name first.
    """

    due: float
    confidence: float
    basis: str

    def distance(self, now: float) -> float:
        """Return the invocation distance at clock value `now`, in clock units, never negative."""
        return max(0.0, self.due - now)


class Estimator(Protocol):
    """One way to foresee invocations in one stream. Pure: no I/O, no clock of its own, deterministic."""

    name: ClassVar[str]

    def observe(self, event: Event, now: float) -> Collection[str]:
        """Take in one event at clock value `now`; return the agents whose estimate it may have changed."""
        ...

    def estimate(self, agent: str, earliest: float = -math.inf) -> Estimate | None:
        """Return the agent's nearest estimate with `due >= earliest`, or None where nothing is foreseen.

        `earliest` is how a reader passes over what is overdue: no clock value is stored for it.
        """
        ...


class ByType:
    """An estimator's dispatch of events to its handlers, by their type."""

    __slots__ = ("_handlers",)
    _handlers: Handlers

    def handler(self, kind: type[Event]) -> Callable[[Any, float], Collection[str]] | None:
        """Return what takes in events of a type, None where they tell nothing. A reader of the wire may have classes of
        its own: what they are called on the wire says what they are."""
        return self._handlers.get(EVENT_TYPES[kind.type])

    def observe(self, event: Event, now: float) -> Collection[str]:
        """Take in one event at clock value `now`; return the agents whose estimate it may have changed."""
        handler = self.handler(type(event))
        return () if handler is None else handler(event, now)
