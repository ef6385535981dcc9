"""The lease protocol in a world of faults; `make test-fleet` looks for longer."""

from __future__ import annotations

import pytest

from scalesim_daemon.fleet.lease import Ask, Lease, Phase, Verb
from tests.daemon.lease_machine import LeaseMachine, play
from tests.daemon.lease_world import FAST, TERMS, Clock, World


def test_never_two_act_and_somebody_does() -> None:
    play(LeaseMachine, 25)


def world() -> World:
    return World([Clock(), Clock()], Clock(), lambda me: Lease(me, TERMS))


def test_a_takeover_after_a_crash_takes_less_than_two_lease_times() -> None:
    for phase in range(20):
        known = world()
        known.run(2.0 + phase / 100)
        (holder,) = known.acting()
        known.crash(holder)
        ended = known.time
        known.run(2.0)
        assert 1.3 < known.turns[-1].at - ended < 1.7


def test_who_hears_no_answer_in_time_gives_way() -> None:
    """Redis does what it is asked, and is not heard: whoever acts on nothing that it is told keeps nobody away."""
    for phase in range(20):
        known = world()
        known.run(2.0 + phase / 100)
        (holder,) = known.acting()
        holder.back = 2 * TERMS.every
        struck = known.time
        known.run(2.0)
        assert known.turns[-1].owner != holder.lease.me
        assert known.turns[-1].at - struck < 2.0
        known.run(5.0)
        (other,) = known.acting()
        assert other is not holder


@pytest.mark.parametrize("late", [1.05, 2.0])
def test_who_hears_no_answer_in_time_doesn_t_ask_its_standby_for_the_engine(late: float) -> None:
    known = World([Clock()] * 2, Clock(), lambda me: Lease(me, TERMS, standby=me.startswith("d1/")))
    near, standby = known.daemons
    near.back = late * TERMS.every
    known.run(4.0)
    assert list(known.acting()) == [standby]
    known.run(20.0)
    assert list(known.acting()) == [standby] and standby.lease.taken == 1
    near.back = FAST
    known.run(4.0)
    assert list(known.acting()) == [near]


def test_who_is_put_in_the_holders_place_needn_t_wait() -> None:
    known = world()
    known.run(2.0)
    (holder,) = known.acting()
    known.stop(holder)
    ended = known.time
    known.run(1.0)
    assert known.turns[-1].owner != holder.lease.me
    assert known.turns[-1].at - ended <= TERMS.every + 0.01


def test_nobody_is_put_in_the_holders_place_who_is_gone() -> None:
    for phase in range(40):
        known = World([Clock()] * 2, Clock(), lambda me: Lease(me, TERMS, standby=me.startswith("d1/")))
        known.run(2.0)
        near, standby = known.daemons
        known.crash(near)
        # The standby has taken the lease, and waits, when its own daemon asks for it and is gone again.
        known.run(TERMS.ttl + 2 * TERMS.slack)
        assert standby.lease.token is not None
        known.start(near)
        known.run(0.01 + phase / 50)
        known.crash(near)
        ended = known.time
        known.run(2.0)
        assert list(known.acting()) == [standby]
        assert known.turns[-1].at > ended


def test_who_held_the_engine_comes_first_where_redis_forgot_it() -> None:
    known = world()
    known.run(2.0)
    (holder,) = known.acting()
    known.redis.flush()
    known.run(TERMS.ttl + TERMS.every + 0.1)
    assert list(known.acting()) == [holder]


@pytest.mark.parametrize("seconds", [1.0, 2.3])
def test_who_held_the_engine_comes_first_where_redis_was_away_and_is_empty(seconds: float) -> None:
    for phase in range(20):
        known = world()
        known.run(2.0 + phase / 100)
        (holder,) = known.acting()
        known.redis_up = False
        known.run(seconds)
        assert not list(known.acting())
        known.redis.flush()
        known.redis_up = True
        known.run(2.0)
        assert list(known.acting()) == [holder]


def test_people_are_told_why_nothing_is_done() -> None:
    lease, other = Lease("here/1", TERMS), Lease("there/1", TERMS)
    redis = world().redis

    def tell(one: Lease, now: float) -> None:
        ask = one.ask(now)
        assert ask is not None
        one.answered(ask, redis.put(one.me, ask, True, now), now)

    assert lease.why_not(0.0) == "nobody holds it yet"
    tell(other, 0.0)
    tell(lease, 0.0)
    assert (lease.phase(0.0), lease.why_not(0.0)) == (Phase.WATCHES, "held by there")
    assert (other.phase(0.1), other.token) == (Phase.WAITS, 1)
    assert other.why_not(0.1) == "taken just now: in 0.7 s whoever held it before has surely stopped"
    for now in (0.2, 0.41, 0.62, 0.83):
        tell(other, now)
    assert other.phase(0.84) is Phase.HOLDS and other.why_not(0.84) is None
    assert other.held_by(0.84) == "there"
    over = 0.84 + TERMS.ttl - TERMS.margin
    assert (other.phase(over), other.held_by(over)) == (Phase.WATCHES, "")
    assert other.why_not(over) == "its lease is over, and is asked for anew"
    lease.failed(Ask(Verb.LOOK, 0, 1.0), "no answer", 1.0)
    assert lease.why_not(1.0) == "no lease: no answer"


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_who_stood_still_may_not_act_whatever_waits_to_be_heard(share: float) -> None:
    """The first thing that a daemon does when it goes on may be an act."""
    known = world()
    known.run(2.0 + share * TERMS.every)
    (holder,) = known.acting()
    known.pause(holder)
    known.run(2.0)
    (successor,) = known.acting()
    assert successor is not holder
    known.resume(holder)
    known.run(2.0)
    assert [turn.owner for turn in known.turns] == [holder.lease.me, successor.lease.me]
