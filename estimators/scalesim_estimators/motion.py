"""Straight walks, in space units and clock units, and when two of them come near each other."""

from __future__ import annotations

import math
from typing import NamedTuple

Contacts = tuple[tuple[float, float], ...]
"""Clock intervals (start, end) in which two agents are near each other, in order; an end may be infinite."""

_ROUNDING = 1e-9


class Motion(NamedTuple):
    """A walk from (x, y), begun at clock value `start`, with velocity (vx, vy) until it reaches (to_x, to_y)
    at clock value `arrival`, and a stay there; `vision` is the radius at which the walker meets others."""

    start: float
    x: float
    y: float
    vx: float
    vy: float
    arrival: float
    to_x: float
    to_y: float
    vision: float

    def at(self, time: float) -> tuple[float, float, float, float]:
        """Return position and velocity (x, y, vx, vy) at clock value `time >= start`."""
        if time >= self.arrival:
            return self.to_x, self.to_y, 0.0, 0.0
        passed = time - self.start
        return self.x + self.vx * passed, self.y + self.vy * passed, self.vx, self.vy


def walk(
    start: float,
    xy: tuple[float, float],
    to: tuple[float, float] | None,
    speed: float | None,
    vision: float | None,
) -> Motion:
    """Return the motion of an agent at `xy` that goes `to` a point at `speed`; without a destination or a
    speed it stands."""
    x, y = xy
    to_x, to_y = xy if to is None else to
    length = math.hypot(to_x - x, to_y - y)
    if not speed or length == 0:
        return Motion(start, x, y, 0.0, 0.0, start, x, y, vision or 0.0)
    vx, vy = (to_x - x) / length * speed, (to_y - y) / length * speed
    return Motion(start, x, y, vx, vy, start + length / speed, to_x, to_y, vision or 0.0)


def contacts(a: Motion, b: Motion, start: float) -> Contacts:
    """Return when, from clock value `start` on, two walkers are within max(vision of a, vision of b).

    The relative motion is linear between arrivals, so that there are at most three segments. In each, with
    relative position r and velocity v at its beginning, |r + v s| <= R is a quadratic inequality in the time
    s since then: (v.v) s^2 + 2 (r.v) s + (r.r - R^2) <= 0.
    """
    radius = max(a.vision, b.vision)
    turns = sorted(time for time in (a.arrival, b.arrival) if start < time < math.inf)
    found: list[tuple[float, float]] = []
    begin = start
    for end in (*turns, math.inf):
        ax, ay, avx, avy = a.at(begin)
        bx, by, bvx, bvy = b.at(begin)
        near = _within(ax - bx, ay - by, avx - bvx, avy - bvy, radius, end - begin)
        if near is not None and begin + near[0] < math.inf:
            first, last = begin + near[0], begin + near[1]
            if found and first - found[-1][1] <= _ROUNDING * (1 + abs(first)):
                found[-1] = (found[-1][0], last)
            else:
                found.append((first, last))
        begin = end
    return tuple(found)


def _within(
    rx: float, ry: float, vx: float, vy: float, radius: float, duration: float
) -> tuple[float, float] | None:
    """Return the part of [0, duration] in which |r + v s| <= radius, or None."""
    inside = rx * rx + ry * ry - radius * radius
    near = inside <= _ROUNDING * radius * radius
    square = vx * vx + vy * vy
    if square == 0:
        return (0.0, duration) if near else None
    approach = rx * vx + ry * vy
    discriminant = approach * approach - square * inside
    if discriminant < 0 and not near:
        return None
    root = math.sqrt(max(0.0, discriminant))
    last = min(duration, (-approach + root) / square)
    if near:
        return 0.0, max(0.0, last)
    first = (-approach - root) / square
    return (first, max(first, last)) if 0 <= first <= duration else None
