from __future__ import annotations

import math

from hypothesis import example, given
from hypothesis import strategies as st

from scalesim_daemon.clock import StreamClock


def test_the_pace_is_the_median_of_recent_advances() -> None:
    clock = StreamClock("step")
    assert clock.pace == 1.0
    for now, wall in ((0, 100.0), (1, 102.0), (2, 104.0), (3, 150.0)):
        assert clock.advance(now, wall)
    assert (clock.now, clock.pace, clock.step) == (3, 2.0, 1)
    clock.advance(7, 158.0)
    assert (clock.pace, clock.step) == (2.0, 4)


def test_advances_that_come_at_once_are_one() -> None:
    clock = StreamClock("step")
    for now in range(5):
        clock.advance(now, 10.0)
    assert clock.pace == 1.0
    clock.advance(5, 20.0)
    assert clock.pace == 2.0


def test_a_clock_that_stands_still_measures_nothing() -> None:
    clock = StreamClock("step")
    clock.advance(1, 0.0)
    clock.advance(1, 50.0)
    assert clock.pace == 1.0
    clock.advance(2, 60.0)
    assert clock.pace == 60.0


def test_a_clock_that_goes_back_says_so_and_keeps_its_pace() -> None:
    clock = StreamClock("sim_seconds")
    clock.advance(10, 0.0)
    clock.advance(20, 5.0)
    assert not clock.advance(3, 100.0)
    assert (clock.now, clock.pace) == (3, 0.5)
    assert clock.advance(4, 100.5)
    assert clock.pace == 0.5


@example([(0.0, 0.0), (2.2250738585072014e-308, 4.0)])
@given(st.lists(st.tuples(st.floats(0, 1e6), st.just(0.0) | st.floats(1e-3, 1e3)), max_size=50))
def test_the_pace_is_positive_whatever_comes(moves: list[tuple[float, float]]) -> None:
    clock, wall = StreamClock("step"), 0.0
    for now, passed in moves:
        wall += passed
        before = clock.now
        assert clock.advance(now, wall) is (now >= before)
        assert clock.now == now
        assert 0 < clock.pace < math.inf


def test_what_was_announced_already_is_no_tick() -> None:
    clock = StreamClock("step")
    clock.advance(1.0, 10.0)
    clock.advance(2.0, 110.0)
    clock.advance(2.0, 140.0)  # a snapshot says it again
    assert clock.passed(150.0) == 40.0
