"""What it costs to keep a memory item, against what that saves: one scale for items of any size and kind. Pure."""

from __future__ import annotations

import math


def rent(distance: float, size: int, seconds: float) -> float:
    """Return how many bytes an item takes for how long, per second that it saves: what has the highest rent goes first.

    `distance` is how far away its next use is, in any unit as long as it is the same for all that are compared;
    `size` is in bytes, and `seconds` is what loading or computing it anew takes. Infinity where no use is foreseen or
    nothing is saved, 0 for what is used now. Among items that are equally large and take equally long, and wherever
    seconds grow in proportion to bytes, this is the order of the distances alone.
    """
    if distance == math.inf or seconds <= 0:
        return math.inf
    return distance * size / seconds
