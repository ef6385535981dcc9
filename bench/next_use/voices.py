"""Who tells the engine's plug-in the dues while a recording is played, and from what."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Final, Protocol

import msgspec
import zmq

from bench.next_use.recording import Recording
from scalesim_adapters.dues import TOPIC, DueListener, DueMessage
from scalesim_client import Publisher
from scalesim_client.events import (
    ActivityStarted,
    Event,
    InvocationFinished,
    InvocationStarted,
    PlanDeclared,
    StepAdvanced,
)

WITHIN: Final = 20.0
MARK: Final = "mark"  # an agent that never calls, whose due tells which message was the last
LATER: Final = 1_000_000
CLOCK: Final = "record"


class NotHeard(RuntimeError):
    """Dues were not heard in time."""


class Voice(Protocol):
    """Hears what a simulation says."""

    def say(self, *events: Event) -> None:
        """Take the events; return when the dues that follow from them have been broadcast and heard."""
        ...


class Silence:
    """Nobody speaks, so that the engine evicts by recency."""

    def say(self, *events: Event) -> None:
        """Drop the events."""


class Ear:
    """Hears the same broadcast as the engine's plug-in."""

    def __init__(self, listener: DueListener, simulation: str) -> None:
        self._table = listener.table
        self._mark = f"{simulation}/{MARK}"

    def await_mark(self, number: int) -> None:
        """Wait until this mark is heard, and with it what was said before."""
        await_that(lambda: (due := self._table.due(self._mark)) is not None and due[1] == LATER + number)

    def await_end(self) -> None:
        """Wait until nothing of the simulation is due."""
        await_that(lambda: len(self._table) == 0)


class Estimated:
    """The daemon speaks, from the events as a simulation says them."""

    def __init__(self, publisher: Publisher, ear: Ear) -> None:
        self._publisher = publisher
        self._ear = ear
        self._said = 0

    def say(self, *events: Event) -> None:
        """Hand the events to the daemon, and wait for what comes of them."""
        self._said += 1
        mark = ActivityStarted(agent=MARK, until=float(LATER + self._said))
        self._publisher.send(*events, mark)
        self._ear.await_mark(self._said)


class Declared:
    """The daemon speaks, from nothing but the order of the calls, which is declared at each step."""

    def __init__(self, inner: Estimated, recording: Recording) -> None:
        self._inner = inner
        self._order = [call.agent for call in recording.calls]
        self._position = 0

    def say(self, *events: Event) -> None:
        """Say only what any simulation says, and who is next."""
        said: list[Event] = []
        for event in events:
            if isinstance(event, StepAdvanced):
                said += [event, PlanDeclared(agents=self._order[self._position :])]
            elif isinstance(event, InvocationStarted | InvocationFinished):
                said.append(event)
                self._position += isinstance(event, InvocationFinished)
        self._inner.say(*said)


class Recorded:
    """The record speaks: after every call, all agents' next uses."""

    def __init__(self, socket: zmq.Socket[bytes], ear: Ear, recording: Recording) -> None:
        self._socket = socket
        self._ear = ear
        self._recording = recording
        self._position = 0

    def say(self, *events: Event) -> None:
        """Count the calls that have been answered, and tell what comes after them."""
        self._position += sum(isinstance(event, InvocationFinished) for event in events)
        uses = {**self._recording.next_uses(self._position), MARK: LATER + self._position}
        simulation = self._recording.simulation
        dues: dict[str, tuple[str, float] | None] = {
            f"{simulation}/{agent}": (CLOCK, float(use)) for agent, use in uses.items()
        }
        payload = msgspec.msgpack.encode(DueMessage("snapshot", {CLOCK: (0.0, 1.0)}, dues))
        # Greater than any number of the daemon that spoke before, which counts from when it started.
        self._socket.send_multipart([TOPIC, time.time_ns().to_bytes(8, "big"), payload])
        self._ear.await_mark(self._position)


@contextmanager
def silent(recording: Recording) -> Iterator[Silence]:
    """Nobody's voice."""
    yield Silence()


@contextmanager
def estimated(feed: str, dues: str, recording: Recording) -> Iterator[Estimated]:
    """The daemon's voice; it is heard and, at the end, forgotten by everyone who listens."""
    with closing(DueListener(dues)) as listener:
        ear = Ear(listener, recording.simulation)
        with Publisher(recording.simulation, address=feed) as publisher:
            yield Estimated(publisher, ear)
        ear.await_end()


@contextmanager
def declared(feed: str, dues: str, recording: Recording) -> Iterator[Declared]:
    """The same daemon's, of which nothing but the order is heard."""
    with estimated(feed, dues, recording) as inner:
        yield Declared(inner, recording)


@contextmanager
def broadcasting(dues: str) -> Iterator[zmq.Socket[bytes]]:
    """A broadcast in the daemon's place; the engine's plug-in has found it."""
    context = zmq.Context()
    try:
        socket = context.socket(zmq.XPUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        socket.bind(dues)
        _await_subscription(socket)
        yield socket
    finally:
        context.destroy(linger=0)


@contextmanager
def recorded(socket: zmq.Socket[bytes], dues: str, recording: Recording) -> Iterator[Recorded]:
    """The record's voice, which is heard by everyone who listens."""
    with closing(DueListener(dues)) as listener:
        _await_subscription(socket)
        yield Recorded(socket, Ear(listener, recording.simulation), recording)


def _await_subscription(socket: zmq.Socket[bytes]) -> None:
    while True:
        if not socket.poll(int(WITHIN * 1000)):
            raise NotHeard(f"nobody subscribed to the dues within {WITHIN:.0f} s")
        if socket.recv().startswith(b"\x01"):
            return


def await_that(holds: Callable[[], bool]) -> None:
    """Look again and again until it holds. Raises `NotHeard` where it doesn't come to hold."""
    deadline = time.monotonic() + WITHIN
    while not holds():
        if time.monotonic() > deadline:
            raise NotHeard(f"dues were not heard within {WITHIN:.0f} s")
        time.sleep(0.001)
