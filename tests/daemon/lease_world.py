"""A world in which leases are kept: daemons whose clocks drift, a network that delays, loses and doubles, a Redis that
forgets. True time is in lease times; nothing waits."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

from scalesim_daemon.fleet.lease import Answer, Ask, Lease, Terms, Verb

TERMS = Terms.of(1.0)
FAST = 0.002
# Each clock gains or loses at most this share.
DRIFT = 0.05
STARTED_AT = 1_000_000.0


class Clock(NamedTuple):
    """A clock that runs at a rate of its own."""

    offset: float = 0.0
    rate: float = 1.0

    def at(self, true: float) -> float:
        return self.offset + self.rate * true

    def true(self, told: float) -> float:
        return (told - self.offset) / self.rate


class Held(NamedTuple):
    """A lease in Redis."""

    owner: str
    token: int
    since: float
    ready: bool
    until: float


class Waiting(NamedTuple):
    """Who waits for a lease."""

    owner: str
    near: bool
    until: float


class Data(NamedTuple):
    """What Redis has of one engine."""

    held: Held | None = None
    token: int = 0
    waiting: Waiting | None = None


class SimRedis:
    """Does what the scripts of `LeaseStore` do: a test holds the two together. `now` is its wall time in seconds."""

    def __init__(self, ttl: float) -> None:
        self.ttl = ttl
        self.history = [Data()]

    @property
    def data(self) -> Data:
        return self.history[-1]

    def put(self, me: str, ask: Ask, near: bool, now: float) -> Answer:
        self._expire(now)
        match ask.verb:
            case Verb.HEAR:
                return self._state(now)
            case Verb.LOOK | Verb.TAKE:
                ready = self._claim(me, ask, near, now)
                return self._state(now, ready=ready)
            case Verb.RENEW:
                return self._renew(me, ask, now)
            case Verb.HAND_OVER:
                return self._hand_over(me, ask, now)

    def forget(self, writes: int) -> None:
        """Fail over to a replica that lacks the last writes."""
        del self.history[max(1, len(self.history) - writes) :]

    def evict(self) -> None:
        """Lose the lease alone, as an eviction or a clock that jumps ahead does."""
        self._write(held=None)

    def flush(self) -> None:
        """Lose everything."""
        self.history = [Data()]

    def _claim(self, me: str, ask: Ask, near: bool, now: float) -> bool:
        held, waiting = self.data.held, self.data.waiting
        if held is not None and held.owner == me and held.ready:
            self._write(held=held._replace(ready=False, until=now + self.ttl))
            return True
        if held is None or held.owner == me:
            if ask.verb is Verb.TAKE:
                self._give(me, ask.token, now, ready=False)
        elif near or waiting is None or not waiting.near:
            self._write(waiting=Waiting(me, near, now + 3 / 8 * self.ttl))
        return False

    def _renew(self, me: str, ask: Ask, now: float) -> Answer:
        held, waiting = self.data.held, self.data.waiting
        if held is None or (held.owner, held.token) != (me, ask.token):
            return self._state(now)
        self._write(held=held._replace(until=now + self.ttl), token=max(self.data.token, ask.token))
        return self._state(now, wanted=waiting is not None and waiting.near)

    def _hand_over(self, me: str, ask: Ask, now: float) -> Answer:
        held, waiting = self.data.held, self.data.waiting
        if held is not None and (held.owner, held.token) == (me, ask.token):
            self._write(held=None, waiting=None)
            if waiting is not None:
                self._give(waiting.owner, ask.token, now, ready=True)
        return self._state(now)

    def _give(self, owner: str, seen: int, now: float, *, ready: bool) -> None:
        token = max(self.data.token + 1, seen + 1, int(now * 1000))
        self._write(held=Held(owner, token, int(now * 1000) / 1000, ready, now + self.ttl), token=token)

    def _state(self, now: float, *, ready: bool = False, wanted: bool = False) -> Answer:
        held = self.data.held
        if held is None:
            return Answer(token=self.data.token)
        return Answer(held.owner, held.token, held.until - now, held.since, ready, wanted)

    def _expire(self, now: float) -> None:
        held, waiting = self.data.held, self.data.waiting
        if held is not None and held.until <= now:
            self._write(held=None)
        if waiting is not None and waiting.until <= now:
            self._write(waiting=None)

    def _write(self, **fields: object) -> None:
        self.history.append(self.data._replace(**fields))  # type: ignore[arg-type]


class Turn(NamedTuple):
    """When somebody began to act."""

    at: float
    owner: str


@dataclass(slots=True)
class Daemon:
    """A daemon process, or the place of one that is down, and its way to Redis. Where it is cut off, answers that are
    on their way still come."""

    name: str
    clock: Clock
    make: Callable[[str], Lease]
    lease: Lease
    run: int = 1
    alive: bool = True
    paused: bool = False
    there: float = FAST
    back: float = FAST
    cut_off: bool = False
    losing: int = 0
    doubling: int = 0
    asked: Ask | None = None
    wakes: int = 0
    heard: list[tuple[Ask, Answer]] = field(default_factory=list)

    @property
    def up(self) -> bool:
        return self.alive and not self.paused


class World:
    """Some daemons, one engine and one Redis. `run` lets true time pass; whoever acts is looked at after each event,
    and nobody starts to act in between."""

    def __init__(
        self, clocks: list[Clock], redis_clock: Clock, make: Callable[[str], Lease], terms: Terms = TERMS
    ) -> None:
        self.time = 0.0
        self.terms = terms
        self.redis = SimRedis(terms.ttl)
        self.redis_clock = redis_clock
        self.redis_up = True
        self.daemons = [Daemon(f"d{n}", clock, make, make(f"d{n}/1")) for n, clock in enumerate(clocks)]
        self.acted: tuple[int, str] = (0, "")
        self.turns: list[Turn] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        for daemon in self.daemons:
            self._wake(daemon)

    # What happens by itself

    def run(self, duration: float) -> None:
        until = self.time + duration
        while self._events and self._events[0][0] <= until:
            self.time, _, happen = heapq.heappop(self._events)
            happen()
            self.check()
        self.time = until
        self.check()

    def acting(self) -> Iterator[Daemon]:
        for daemon in self.daemons:
            if daemon.up and daemon.lease.may_act(daemon.clock.at(self.time)):
                yield daemon

    def check(self) -> None:
        """Nobody acts beside another, and tokens as the engine sees them never go back."""
        acting = list(self.acting())
        assert len(acting) < 2, f"{' and '.join(one.lease.me for one in acting)} act at {self.time}"
        for daemon in acting:
            token = daemon.lease.token
            assert token is not None
            before, who = self.acted
            if (token, daemon.lease.me) == self.acted:
                continue
            assert token > before, f"{daemon.lease.me} acts with {token} after {who} with {before}"
            self.acted = token, daemon.lease.me
            self.turns.append(Turn(self.time, daemon.lease.me))

    def _at(self, time: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (max(time, self.time), next(self._order), happen))

    def _wake(self, daemon: Daemon) -> None:
        """Let a daemon look at what is due when its lease says so, and only then."""
        daemon.wakes += 1
        wake, lease = daemon.wakes, daemon.lease
        at = self.time if lease.leaves else max(self.time, daemon.clock.true(lease.ask_at))
        self._at(at, lambda: self._look(daemon, wake))

    def _look(self, daemon: Daemon, wake: int) -> None:
        if wake != daemon.wakes or not daemon.up or daemon.asked is not None:
            return
        now = daemon.clock.at(self.time)
        ask = daemon.lease.hand_over(now) if daemon.lease.leaves else daemon.lease.ask(now)
        if ask is None:
            # A clock's value, there and back, is not exact.
            self._at(self.time + 1e-6, lambda: self._look(daemon, wake))
        else:
            self.send(daemon, ask)

    def send(self, daemon: Daemon, ask: Ask) -> None:
        daemon.asked = ask
        run = daemon.run
        self._at(daemon.clock.true(ask.sent + self.terms.every), lambda: self._give_up(daemon, run, ask))
        if daemon.cut_off:
            return
        copies = [daemon.there]
        if daemon.doubling:
            daemon.doubling -= 1
            copies.append(4 * daemon.there + 0.1)
        if daemon.losing:
            daemon.losing -= 1
            copies.pop(0)
        for delay in copies:
            self._at(self.time + delay, lambda: self._serve(daemon, run, ask))

    def _serve(self, daemon: Daemon, run: int, ask: Ask) -> None:
        if not self.redis_up or daemon.cut_off:
            return
        me, near = f"{daemon.name}/{run}", not daemon.lease.standby
        answer = self.redis.put(me, ask, near, STARTED_AT + self.redis_clock.at(self.time))
        if daemon.losing:
            daemon.losing -= 1
            return
        self._at(self.time + daemon.back, lambda: self._hear(daemon, run, ask, answer))

    def _hear(self, daemon: Daemon, run: int, ask: Ask, answer: Answer) -> None:
        if not daemon.alive or daemon.run != run or daemon.asked is not ask:
            return
        if daemon.paused:
            daemon.heard.append((ask, answer))
            return
        daemon.asked = None
        daemon.lease.answered(ask, answer, daemon.clock.at(self.time))
        self._wake(daemon)

    def _give_up(self, daemon: Daemon, run: int, ask: Ask) -> None:
        if not daemon.up or daemon.run != run or daemon.asked is not ask:
            return
        daemon.asked = None
        daemon.lease.failed(ask, "no answer", daemon.clock.at(self.time))
        self._wake(daemon)

    # What befalls it

    def pause(self, daemon: Daemon) -> None:
        daemon.paused = True

    def resume(self, daemon: Daemon) -> None:
        """Go on: acts are seen before anything else is done. Then what came in meanwhile is heard."""
        daemon.paused = False
        self.check()
        heard, daemon.heard = daemon.heard, []
        for ask, answer in heard:
            self._hear(daemon, daemon.run, ask, answer)
        if daemon.asked is not None:
            self._give_up(daemon, daemon.run, daemon.asked)
        self._wake(daemon)

    def crash(self, daemon: Daemon) -> None:
        daemon.alive = daemon.paused = False
        daemon.asked = None
        daemon.heard.clear()

    def start(self, daemon: Daemon) -> None:
        daemon.run += 1
        daemon.alive, daemon.asked = True, None
        daemon.lease = daemon.make(f"{daemon.name}/{daemon.run}")
        self._wake(daemon)

    def stop(self, daemon: Daemon) -> None:
        """End in good order: whoever waits is put in our place."""
        daemon.asked = None
        ask = daemon.lease.hand_over(daemon.clock.at(self.time))
        if ask is not None:
            self.send(daemon, ask)
        self.crash(daemon)

    def calm(self) -> None:
        """Everything works from now on; what was on its way is lost."""
        self._events.clear()
        self.redis_up = True
        for daemon in self.daemons:
            daemon.there = daemon.back = FAST
            daemon.cut_off, daemon.losing, daemon.doubling = False, 0, 0
            daemon.asked = None
            daemon.heard.clear()
            if not daemon.alive:
                self.start(daemon)
            daemon.paused = False
            self.check()
            self._wake(daemon)
