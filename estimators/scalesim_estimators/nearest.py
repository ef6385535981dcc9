"""The one rule by which several estimators' dues become one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Nearest(NamedTuple):
    """The due that holds and the index of the estimator whose it is (-1 and infinity where nobody foresees
    anything), and the due that would hold without that estimator."""

    due: float
    whose: int
    otherwise: float


NOBODY = Nearest(math.inf, -1, math.inf)


def nearest(dues: Sequence[float], admitted: Sequence[bool], floor: float = -math.inf) -> Nearest:
    """Return the smallest due among the admitted estimators, the first of equals; infinity says nothing, and
    what is before `floor` has lapsed.

    The last estimator has learned from invocations alone. It has a say where none of the others has: what a
    simulation tells is worth more than what can be guessed from outside.
    """
    best = second = math.inf
    whose = -1
    learned = len(dues) - 1
    for index, due in enumerate(dues):
        if floor <= due < second and admitted[index] and index != learned:
            if due < best:
                best, second, whose = due, best, index
            else:
                second = due
    if second == math.inf and admitted[learned] and floor <= dues[learned] < math.inf:
        if whose < 0:
            return Nearest(dues[learned], learned, math.inf)
        second = dues[learned]
    return NOBODY if whose < 0 else Nearest(best, whose, second)
