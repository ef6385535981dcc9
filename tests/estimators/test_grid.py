from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalesim_estimators.grid import Strip, StripGrid

coordinates = st.one_of(
    st.integers(-9, 9).map(float), st.floats(-100, 100), st.sampled_from([1e9, -1e9, 5e5])
)
strips = st.builds(
    Strip, coordinates, coordinates, coordinates, coordinates, st.sampled_from([0.0, 0.5, 3.0, 1e6])
)
SAMPLES = [i / 16 for i in range(17)]


def touch(a: Strip, b: Strip) -> bool:
    """Return whether some of 17 points of one line lies in the other strip (then they surely touch)."""
    return any(_near(a, *_point(b, t)) or _near(b, *_point(a, t)) for t in SAMPLES)


def _point(strip: Strip, t: float) -> tuple[float, float]:
    if t == 1:
        return strip.to_x, strip.to_y
    return strip.x + t * (strip.to_x - strip.x), strip.y + t * (strip.to_y - strip.y)


def _near(strip: Strip, x: float, y: float) -> bool:
    dx, dy = strip.to_x - strip.x, strip.to_y - strip.y
    square = dx * dx + dy * dy
    t = 0.0 if square == 0 else min(1.0, max(0.0, ((x - strip.x) * dx + (y - strip.y) * dy) / square))
    px, py = _point(strip, t)
    return (px - x) ** 2 + (py - y) ** 2 <= strip.radius**2


@given(st.lists(st.tuples(st.integers(0, 30), st.none() | strips), max_size=60))
def test_strips_that_touch_are_near(changes: list[tuple[int, Strip | None]]) -> None:
    grid, held = StripGrid(), dict[str, Strip]()
    for number, strip in changes:
        agent = str(number)
        if strip is None:
            grid.remove(agent)
            held.pop(agent, None)
            continue
        grid.insert(agent, strip)
        held[agent] = strip
        found = set(grid.near(agent, 60))
        assert agent not in found
        assert found <= held.keys()
        for other, there in held.items():
            assert other == agent or other in found or not touch(strip, there)


@pytest.mark.parametrize("unit", [1e-4, 1.0, 1e4])
def test_spread_agents_have_few_neighbours_in_any_unit_of_space(unit: float) -> None:
    rng = random.Random(1)
    grid = StripGrid()
    for i in range(5000):
        x, y = rng.uniform(0, 1000), rng.uniform(0, 1000)
        to_x, to_y = x + rng.uniform(-20, 20), y + rng.uniform(-20, 20)
        grid.insert(str(i), Strip(x * unit, y * unit, to_x * unit, to_y * unit, 4 * unit))
    counts = [len(grid.near(str(i), 5000)) for i in range(5000)]
    assert max(counts) < 60
    assert sum(counts) / len(counts) < 20


def test_a_strip_across_the_whole_ground_is_near_everybody() -> None:
    grid = StripGrid()
    for i in range(100):
        grid.insert(str(i), Strip(i * 10.0, 0.0, i * 10.0, 0.0, 1.0))
    grid.insert("far walker", Strip(0.0, 0.0, 1e8, 1e8, 1.0))
    assert len(grid.near("far walker", 101)) == 100
    assert "far walker" in grid.near("50", 101)
    grid.insert("far walker", Strip(0.0, 500.0, 1.0, 500.0, 1.0))
    assert "far walker" not in grid.near("50", 101)
