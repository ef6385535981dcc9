"""What every estimator gives and takes: events in, an estimate of the next invocation out."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import chain, repeat
from types import MethodType
from typing import Any, ClassVar, NamedTuple, Protocol

from scalesim_client.events import EVENT_TYPES, Event

Handlers = Mapping[type[Event], Callable[[Any, Any, float], Collection[str]]]
"""Per type of event the method of an estimator that takes it in, with its clock value."""
Listener = Callable[[Sequence[Any], float], Collection[str]]
"""Takes in a run of events of one type at one clock value, and names the agents whose estimate may be another now."""


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
    """An estimator's dispatch of events to its handlers, by their type. These are the class's: who holds methods of its
    own is garbage that only the collector finds, and with it all that it knows of a stream that was closed."""

    __slots__ = ()
    handlers: ClassVar[Handlers]

    def listener(self, kind: type[Event]) -> Listener | None:
        """Return what takes in events of a type, None where they tell nothing. A reader of the wire may have classes of
        its own: what they are called on the wire says what they are."""
        handler = self.handlers.get(EVENT_TYPES[kind.type])
        return None if handler is None else one_by_one(MethodType(handler, self))

    def observe(self, event: Event, now: float) -> Collection[str]:
        """Take in one event at clock value `now`; return the agents whose estimate it may have changed."""
        listener = self.listener(type(event))
        return () if listener is None else listener((event,), now)


def one_by_one(handler: Callable[[Any, float], Collection[str]]) -> Listener:
    """Return the listener that hands each event to a handler, in order."""
    return partial(_hand_over, handler)


def _hand_over(
    handler: Callable[[Any, float], Collection[str]], events: Sequence[Any], now: float
) -> Collection[str]:
    if len(events) == 1:
        return handler(events[0], now)
    return dict.fromkeys(chain.from_iterable(map(handler, events, repeat(now))))
