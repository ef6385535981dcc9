"""The lease protocol in a world of faults: hypothesis looks for a way to make two daemons act at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from scalesim_daemon.fleet.lease import Lease
from tests.daemon.lease_world import DRIFT, FAST, TERMS, Clock, World

DAEMONS = 3
RATES = st.sampled_from((1 - DRIFT, 1 + DRIFT))
WHO = st.integers(0, DAEMONS - 1)
SOMEBODY = st.none() | WHO
DELAY = st.sampled_from((FAST, 0.18))
THEN = st.sampled_from((0.0, 0.2, 0.5, 0.9))


class LeaseMachine(RuleBasedStateMachine):
    """All faults, in any order and together."""

    terms = TERMS
    lease: ClassVar[type[Lease]] = Lease

    @initialize(rates=st.tuples(RATES, RATES, RATES), redis=RATES, standby=SOMEBODY)
    def begin(self, rates: tuple[float, ...], redis: float, standby: int | None) -> None:
        self.standby = f"d{standby}"
        clocks = [Clock(100.0 * n, rate) for n, rate in enumerate(rates)]
        self.world = World(clocks, Clock(0.0, redis), self.make, self.terms)
        self.world.run(1.0)

    def make(self, me: str) -> Lease:
        return self.lease(me, self.terms, standby=me.startswith(f"{self.standby}/"))

    @rule(then=THEN, who=WHO, there=DELAY, back=DELAY, losing=st.integers(0, 2), doubling=st.booleans())
    def way_gets_bad(
        self, then: float, who: int, there: float, back: float, losing: int, doubling: bool
    ) -> None:
        daemon = self.world.daemons[who]
        daemon.there, daemon.back, daemon.losing, daemon.doubling = there, back, losing, int(doubling)
        self.world.run(then)

    @rule(then=THEN, alone=SOMEBODY)
    def way_is_cut(self, then: float, alone: int | None) -> None:
        self.cut(alone)
        self.world.run(then)

    @rule(then=THEN, who=WHO)
    def daemon_stands_still_or_goes_on(self, then: float, who: int) -> None:
        daemon = self.world.daemons[who]
        if daemon.paused:
            self.world.resume(daemon)
        elif daemon.alive:
            self.world.pause(daemon)
        self.world.run(then)

    @rule(then=THEN, who=WHO, down=THEN, in_good_order=st.booleans())
    def daemon_ends_and_starts(self, then: float, who: int, down: float, in_good_order: bool) -> None:
        daemon = self.world.daemons[who]
        (self.world.stop if in_good_order and daemon.up else self.world.crash)(daemon)
        self.world.run(down)
        self.world.start(daemon)
        self.world.run(then)

    @rule(then=THEN, away=THEN)
    def redis_is_away(self, then: float, away: float) -> None:
        self.world.redis_up = False
        self.world.run(away)
        self.world.redis_up = True
        self.world.run(then)

    @rule(then=THEN, writes=st.integers(1, 9), offset=st.sampled_from((-0.02, 0.02)), alone=SOMEBODY)
    def redis_fails_over(self, then: float, writes: int, offset: float, alone: int | None) -> None:
        """To a replica that lacks some writes, on a host with another clock, which others reach."""
        self.world.redis.forget(writes)
        self.world.redis_clock = self.world.redis_clock._replace(offset=offset)
        self.cut(alone)
        self.world.run(then)

    @rule(then=THEN, everything=st.booleans(), alone=SOMEBODY, fresh=SOMEBODY, ending=SOMEBODY)
    def redis_loses_the_lease(
        self, then: float, everything: bool, alone: int | None, fresh: int | None, ending: int | None
    ) -> None:
        """By eviction, a clock that jumps ahead, or with all that it has. Somebody starts who knows nothing, and then
        somebody ends in good order."""
        (self.world.redis.flush if everything else self.world.redis.evict)()
        self.cut(alone)
        self.renew(fresh)
        self.world.run(then)
        if ending is not None and self.world.daemons[ending].up:
            self.world.stop(self.world.daemons[ending])
            self.world.run(0.2)
            self.world.start(self.world.daemons[ending])

    @rule(lost=THEN, then=THEN, alone=SOMEBODY, fresh=SOMEBODY, alone_then=SOMEBODY)
    def redis_finds_the_lease_again(
        self, lost: float, then: float, alone: int | None, fresh: int | None, alone_then: int | None
    ) -> None:
        """The master loses it, and fails over to a replica that has it."""
        known = list(self.world.redis.history)
        self.redis_loses_the_lease(lost, False, alone, fresh, None)
        self.world.redis.history = known
        self.cut(alone_then)
        self.world.run(then)

    def cut(self, alone: int | None) -> None:
        for n, daemon in enumerate(self.world.daemons):
            daemon.cut_off = n == alone

    def renew(self, fresh: int | None) -> None:
        if fresh is not None:
            self.world.crash(self.world.daemons[fresh])
            self.world.start(self.world.daemons[fresh])

    def teardown(self) -> None:
        """From any state: somebody acts within two lease times, then the one whose engine it is; and another within two
        after it is gone."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.calm()
        begun = world.time
        world.run(2.0)
        assert world.turns[-1].at > begun or list(world.acting())
        world.run(0.77)
        for end in (world.crash, world.stop):
            (holder,) = world.acting()
            assert holder.name != self.standby or sum(daemon.up for daemon in world.daemons) == 1
            end(holder)
            ended = world.time
            world.run(2.0)
            assert world.turns[-1].at > ended
            world.run(0.5)


def play(machine: type[LeaseMachine], examples: int, phases: Sequence[Phase] = tuple(Phase)) -> None:
    """Look for a way to break a protocol; always the same ways for the same protocol."""
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            derandomize=True,
            database=None,
            phases=phases,
            suppress_health_check=list(HealthCheck),
        ),
    )
