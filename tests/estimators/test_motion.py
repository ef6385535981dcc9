from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from estimator_events import points
from hypothesis import given
from hypothesis import strategies as st

from scalesim_estimators.motion import Motion, contacts, walk

speeds = st.sampled_from([0.0, 0.5, 1.0, 3.0])
radii = st.one_of(st.sampled_from([0.0, 1.0, 2.0]), st.floats(0, 4))
walks = st.builds(walk, st.floats(0, 5), points, st.none() | points, speeds, radii)


def test_head_on_walkers_meet_at_distance_less_radius_over_closing_speed() -> None:
    a = walk(10.0, (0.0, 0.0), (20.0, 0.0), 1.0, 2.0)
    b = walk(10.0, (20.0, 0.0), (0.0, 0.0), 3.0, 1.0)
    [(start, end)] = contacts(a, b, 10.0)
    assert start == pytest.approx(10 + (20 - 2) / 4)
    assert end == pytest.approx(10 + (20 + 2) / 4)


def test_walkers_with_one_destination_meet_when_the_later_one_arrives() -> None:
    a = walk(0.0, (3.0, 4.0), (0.0, 0.0), 0.5, None)
    b = walk(0.0, (-7.0, 0.0), (0.0, 0.0), 3.0, None)
    assert contacts(a, b, 0.0) == ((10.0, math.inf),)


def test_ways_that_do_not_come_near_never_meet() -> None:
    a = walk(0.0, (0.0, 0.0), (9.0, 0.0), 1.0, 1.0)
    assert contacts(a, walk(0.0, (0.0, 2.0), (9.0, 2.0), 1.0, 1.5), 0.0) == ()
    assert contacts(a, walk(0.0, (9.0, 9.0), None, 1.0, 1.5), 0.0) == ()


def test_ways_that_cross_at_different_times_do_not_meet() -> None:
    a = walk(0.0, (-5.0, 0.0), (5.0, 0.0), 1.0, 0.5)
    b = walk(0.0, (0.0, -50.0), (0.0, 50.0), 1.0, 0.5)
    assert contacts(a, b, 0.0) == ()


def test_a_faster_walker_leaves_and_is_met_again_at_the_destination() -> None:
    a = walk(0.0, (0.0, 0.0), (30.0, 0.0), 3.0, 1.0)
    b = walk(0.0, (0.0, 0.0), (30.0, 0.0), 1.0, 1.0)
    (first, gone), (again, last) = contacts(a, b, 0.0)
    assert (first, gone, again, last) == pytest.approx((0.0, 0.5, 29.0, math.inf))


def test_who_stands_together_stays_together() -> None:
    a, b = walk(0.0, (1.0, 1.0), None, None, None), walk(4.0, (1.0, 1.0), None, None, None)
    assert contacts(a, b, 4.0) == ((4.0, math.inf),)


def gaps(a: Motion, b: Motion, times: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the distances at `times`, from positions interpolated along each way."""

    def track(m: Motion) -> npt.NDArray[np.float64]:
        knots = [m.start, max(m.arrival, m.start + 1e-12)]
        return np.stack([np.interp(times, knots, [m.x, m.to_x]), np.interp(times, knots, [m.y, m.to_y])])

    return np.asarray(np.hypot(*(track(a) - track(b))))


@given(walks, walks)
def test_contacts_agree_with_positions_simulated_in_small_steps(a: Motion, b: Motion) -> None:
    start = max(a.start, b.start)
    radius = max(a.vision, b.vision)
    found = contacts(a, b, start)
    assert contacts(b, a, start) == found
    times = np.linspace(start, start + 50.0, 2001)
    inside = np.zeros(times.shape, dtype=bool)
    for begin, end in found:
        assert start <= begin <= end
        assert not math.isnan(end)
        inside |= (times >= begin - 1e-6) & (times <= end + 1e-6)
        edge = gaps(a, b, np.array([begin, min(end, begin + 60.0)]))
        assert (edge <= radius + 1e-6).all()
    distance = gaps(a, b, times)
    assert (distance[inside] <= radius + 1e-4).all()
    assert (distance[~inside] >= radius - 1e-6).all()
