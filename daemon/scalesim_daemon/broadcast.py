"""The distance broadcast: all agents' dues, for plug-ins that rank evictions inside the engines.

The wire is described where it is read: `scalesim_adapters.dues`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from functools import partial
from time import time_ns

import msgspec
import zmq
from zmq.auth.asyncio import AsyncioAuthenticator

from scalesim_adapters.dues import TOPIC, DueMessage
from scalesim_daemon.board import Due, overdue_after
from scalesim_daemon.clock import StreamClock
from scalesim_daemon.curve import guard
from scalesim_daemon.population import Changes, Population
from scalesim_daemon.settings import ConfigError, CurveSettings
from scalesim_estimators import Calendar, day_of

HEARTBEAT_SECONDS = 0.5
# A snapshot in between also lets listeners forget the clocks of sources that are gone.
RESTATE_SECONDS = 60.0
LONGEST_SUBSCRIPTION = 1024
# What is still to be read of who subscribes waits for the next cycle.
SUBSCRIPTIONS_A_CYCLE = 1000

# The clock of agents that are pinned or being served: no due is nearer.
_NOW_CLOCK = ""
_NOW = Due(-math.inf, 1.0, "", StreamClock("step"), _NOW_CLOCK)
_STALE = 64

_Place = tuple[str, float]


class DueLedger:
    """What listeners were told, and what they need to be told next. Pure."""

    def __init__(self, population: Population) -> None:
        self._population = population
        self._marked: set[str] = set()
        self._pinned: Collection[str] = frozenset()
        self._told: dict[str, Due] = {}
        """Per agent what the board had when it was told."""
        self._told_clocks: dict[str, tuple[float, float]] = {}
        self._passing: dict[str, Calendar[str]] = {}
        self._several: set[str] = set()

    def mark(self, changes: Changes) -> None:
        """Take note of what happened."""
        self._marked |= changes.dues
        self._marked.update(changes.started, changes.finished)

    def forget(self) -> None:
        """Nobody listens: the next word is a snapshot."""
        for kept in (self._marked, self._told, self._told_clocks, self._passing, self._several):
            kept.clear()

    def snapshot(self, pinned: Collection[str]) -> DueMessage:
        """Return everything, and forget what was told before."""
        self._pinned = pinned
        self.forget()
        dues = self._look({*self._population.agents, *self._population.board.agents(), *pinned})
        return DueMessage("snapshot", self._tick() | {_NOW_CLOCK: (0.0, 1.0)}, dues)

    def delta(self, pinned: Collection[str]) -> DueMessage:
        """Return what isn't told yet."""
        self._marked.update(set(pinned) ^ set(self._pinned))
        self._pinned = pinned
        clocks = self._tick()
        if clocks:
            self._marked |= self._several | self._overdue(clocks)
        marked, self._marked = self._marked, set()
        return DueMessage("delta", clocks, self._look(marked))

    def _tick(self) -> dict[str, tuple[float, float]]:
        """Return the clocks that aren't told as they are now."""
        now = {name: (clock.now, clock.pace) for name, (_, clock) in self._population.clocks().items()}
        changed = {name: value for name, value in now.items() if self._told_clocks.get(name) != value}
        self._told_clocks = now
        return changed

    def _look(self, agents: Iterable[str]) -> dict[str, _Place | None]:
        """Return the agents that aren't told as they are now."""
        changed: dict[str, _Place | None] = {}
        for agent in agents:
            due, told = self._due(agent), self._told.get(agent)
            if _place(due) == _place(told):
                continue
            changed[agent] = _place(due)
            if due is None:
                del self._told[agent]
                continue
            self._told[agent] = due
            if due is not _NOW:
                self._expect(agent, due)
        return changed

    def _due(self, agent: str) -> Due | None:
        board = self._population.board
        (self._several.add if board.streams(agent) > 1 else self._several.discard)(agent)
        known = self._population.agents.get(agent)
        if agent in self._pinned or (known is not None and known.in_flight > 0):
            return _NOW
        due = board.get(agent)
        return None if due is None or not math.isfinite(due.distance) else due

    def _expect(self, agent: str, due: Due) -> None:
        """See to it that the agent is looked at when its due has passed."""
        source = due.source
        if source not in self._passing:
            self._passing[source] = Calendar(day_of(due.clock.kind), partial(self._told_by, source))
        passing = self._passing[source]
        passing.put(agent, due.at)
        if len(passing) > 2 * len(self._told) + _STALE:
            told = ((agent, due.at) for agent, due in self._told.items() if due.source == source)
            passing.refill(told)

    def _told_by(self, source: str, agent: str) -> float:
        due = self._told.get(agent)
        return due.at if due is not None and due.source == source else math.inf

    def _overdue(self, ticked: Iterable[str]) -> set[str]:
        """Return the agents whose due has passed by so much that it may no longer hold."""
        clocks = {name: self._population.clocks()[name][1] for name in ticked if name in self._passing}
        return {
            agent
            for name, clock in clocks.items()
            for agent in self._passing[name].passed(clock.now - overdue_after(clock))
        }


def _place(due: Due | None) -> _Place | None:
    return None if due is None else (due.source, due.at)


class Broadcast:
    """An XPUB socket that every engine's plug-in may subscribe to, or, with `curve`, those whose keys are known. Nobody
    listening costs next to nothing.

    Raises `ConfigError` where `bind` can't be bound, or its keys can't be read.
    """

    def __init__(self, bind: str, population: Population, curve: CurveSettings | None = None) -> None:
        self._ledger = DueLedger(population)
        self._topics: set[bytes] = set()
        self._restated = -math.inf
        self._spoke = -math.inf
        # No two runs of a daemon share a number: a listener takes none of one for the next of another.
        self._seq = time_ns()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.setsockopt(zmq.LINGER, 0)
        self._socket.setsockopt(zmq.MAXMSGSIZE, LONGEST_SUBSCRIPTION)
        # Also a listener that subscribes beside or after another is heard of: it wants a snapshot.
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        self._doorman: AsyncioAuthenticator | None = None
        try:
            if curve is not None:
                self._doorman, _ = guard(self._context, self._socket, curve, "broadcast")
            self._socket.bind(bind)
        except ConfigError:
            self.close()
            raise
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(f"broadcast.bind: {bind}: {error}") from error

    @property
    def address(self) -> str:
        """The address that listeners connect to."""
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def mark(self, changes: Changes) -> None:
        """Take note of what happened since the last cycle. While nothing is said nothing is kept: whoever comes is told
        everything."""
        if self._restated > -math.inf:
            self._ledger.mark(changes)

    def publish(self, pinned: Collection[str], wall: float) -> None:
        """Say in one message what has changed, all of it to a new listener, and every half second at least that
        we live; `wall` is the monotonic time in seconds."""
        subscribed = self._subscribed()
        if not self._topics:
            self.hush()
            return
        if subscribed or wall - self._restated >= RESTATE_SECONDS:
            self._restated = wall
            self._send(self._ledger.snapshot(pinned), wall)
            return
        delta = self._ledger.delta(pinned)
        if delta.clocks or delta.dues or wall - self._spoke >= HEARTBEAT_SECONDS:
            self._send(delta, wall)

    def hush(self) -> None:
        """Say nothing: the plug-ins take silence for "do as the engine would". The next word is a snapshot."""
        if self._restated > -math.inf:
            self._restated = -math.inf
            self._ledger.forget()

    def close(self) -> None:
        """Close the socket."""
        if self._doorman is not None:
            self._doorman.stop()
        self._context.destroy(linger=0)

    def _subscribed(self) -> bool:
        new = False
        for _ in range(SUBSCRIPTIONS_A_CYCLE):
            if not self._socket.poll(0):
                break
            told = self._socket.recv(zmq.NOBLOCK)
            if not TOPIC.startswith(told[1:]):
                # Of what isn't said there is nothing to keep.
                continue
            if told.startswith(b"\x01"):
                self._topics.add(told[1:])
                new = True
            elif told.startswith(b"\x00"):
                # The last who wanted it has gone.
                self._topics.discard(told[1:])
        return new

    def _send(self, message: DueMessage, wall: float) -> None:
        self._spoke = wall
        self._seq += 1
        self._socket.send_multipart([TOPIC, self._seq.to_bytes(8, "big"), msgspec.msgpack.encode(message)])
