"""Each measure of the lease protocol is needed: without it the same search finds two daemons that act at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import Phase

from scalesim_daemon.fleet.lease import Answer, Ask, Lease, Verb
from tests.daemon.lease_machine import LeaseMachine, play
from tests.daemon.lease_world import DRIFT, TERMS, Clock, World

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(900)]


class ByTimer(Lease):
    """Acts until something tells it that its time is over."""

    def may_act(self, now: float) -> bool:
        return self._token is not None and self._confirmed and not self._leaves


class Unconfirmed(Lease):
    """Acts when the wait is over, without asking once more."""

    def may_act(self, now: float) -> bool:
        return self._token is not None and not self._leaves and self._acts_from <= now < self._deadline


class HandsOverWhatItWaitsFor(Lease):
    """Puts another in its place while whoever held the engine before may still act."""

    def hand_over(self, now: float) -> Ask | None:
        self._lapse(now)
        self._leaves = True
        return None if self._token is None else Ask(Verb.HAND_OVER, self._token, now)


class CountsFromTheAnswer(Lease):
    """Takes a renewal for as fresh as its answer."""

    def answered(self, ask: Ask, answer: Answer, now: float) -> None:
        super().answered(replace(ask, sent=now), answer, now)


BROKEN: dict[str, dict[str, Any]] = {
    "any wait": {"terms": replace(TERMS, wait=0.0)},
    "a wait as long as a lease": {"terms": replace(TERMS, wait=TERMS.ttl - TERMS.margin)},
    "a margin": {"terms": replace(TERMS, margin=0.0)},
    "looks at the clock": {"lease": ByTimer},
    "the last question": {"lease": Unconfirmed},
    "patience before a hand-over": {"lease": HandsOverWhatItWaitsFor},
}


@pytest.mark.parametrize("lacking", BROKEN)
def test_the_search_breaks_a_protocol_without(lacking: str) -> None:
    machine = type("Broken", (LeaseMachine,), BROKEN[lacking])
    with pytest.raises(AssertionError, match=r" act at | acts with "):
        play(machine, 3000, (Phase.generate,))


def test_the_search_at_length_does_not_break_the_protocol() -> None:
    play(LeaseMachine, 2000)


@pytest.mark.parametrize(("lease", "breaks"), [(Lease, False), (CountsFromTheAnswer, True)])
def test_the_deadline_counts_from_before_the_renewal_was_sent(lease: type[Lease], breaks: bool) -> None:
    """Slow answers to a slow clock, a fast one that knows nothing, and a Redis that forgets between renewal and answer:
    too much at once for the search to come across."""
    found = []
    for phase in range(40):
        clocks = [Clock(0.0, 1 - DRIFT), Clock(0.0, 1 + DRIFT)]
        world = World(clocks, Clock(), lambda me: lease(me, TERMS))
        slow, fast = world.daemons
        world.crash(fast)
        slow.back = 0.18
        world.run(2.0 + phase / 100)
        world.redis.evict()
        slow.cut_off = True
        world.start(fast)
        try:
            world.run(2.0)
        except AssertionError:
            found.append(phase)
    assert bool(found) is breaks


def test_a_store_with_two_masters_gives_a_lease_twice() -> None:
    """No protocol on one store survives that: docs/fleet.md says how a Redis is kept from it."""
    sides = [World([Clock(), Clock()], Clock(), lambda me: Lease(me, TERMS)) for _ in range(2)]
    for side in sides:
        side.run(2.0)
    (holder,) = sides[0].acting()
    n = sides[0].daemons.index(holder)
    # From here on each of the two daemons reaches a master of its own.
    sides[0].crash(sides[0].daemons[1 - n])
    sides[1].crash(sides[1].daemons[n])
    for side in sides:
        side.run(2.0)
    assert [daemon.name for side in sides for daemon in side.acting()] == [f"d{n}", f"d{1 - n}"]
