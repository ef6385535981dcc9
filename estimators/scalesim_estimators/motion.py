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
    # One function on bare numbers: in a crowd that moves, much of what the daemon does is to compare pairs.
    a_start, a_x, a_y, a_vx, a_vy, a_arrival, a_to_x, a_to_y, a_vision = a
    b_start, b_x, b_y, b_vx, b_vy, b_arrival, b_to_x, b_to_y, b_vision = b
    radius = a_vision if a_vision > b_vision else b_vision
    found: list[tuple[float, float]] = []
    begin, end = start, start
    while end < math.inf:
        begin, end = end, math.inf
        if begin < a_arrival:
            passed = begin - a_start
            rx, ry, vx, vy = a_x + a_vx * passed, a_y + a_vy * passed, a_vx, a_vy
            end = a_arrival
        else:
            rx, ry, vx, vy = a_to_x, a_to_y, 0.0, 0.0
        if begin < b_arrival:
            passed = begin - b_start
            rx, ry, vx, vy = rx - (b_x + b_vx * passed), ry - (b_y + b_vy * passed), vx - b_vx, vy - b_vy
            if b_arrival < end:
                end = b_arrival
        else:
            rx, ry = rx - b_to_x, ry - b_to_y
        inside = rx * rx + ry * ry - radius * radius
        approach = rx * vx + ry * vy
        near = inside <= _ROUNDING * radius * radius
        # Who is out of sight and comes no nearer isn't met.
        if near or approach < 0:
            within = _within(inside, near, approach, vx * vx + vy * vy, end - begin)
            if within is not None and begin + within[0] < math.inf:
                first, last = begin + within[0], begin + within[1]
                if found and first - found[-1][1] <= _ROUNDING * (1 + abs(first)):
                    found[-1] = (found[-1][0], last)
                else:
                    found.append((first, last))
    return tuple(found)


def _within(
    inside: float, near: bool, approach: float, square: float, duration: float
) -> tuple[float, float] | None:
    """Return the part of [0, duration] in which |r + v s| <= R, or None: `inside` is r.r - R^2, at most 0 but for
    rounding where they are `near` at first, `approach` is r.v and `square` v.v."""
    if square == 0:
        return (0.0, duration) if near else None
    discriminant = approach * approach - square * inside
    if discriminant < 0 and not near:
        return None
    root = math.sqrt(max(0.0, discriminant))
    last = min(duration, (-approach + root) / square)
    if near:
        return 0.0, max(0.0, last)
    first = (-approach - root) / square
    return (first, max(first, last)) if 0 <= first <= duration else None
