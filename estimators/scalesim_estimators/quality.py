"""How well estimates foretell the order of invocations, compared with recency."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

_NEIGHBOURS = 64
_CHANGES_KEPT = 8


class _Realised(NamedTuple):
    """One invocation, with what was known just before it."""

    agent: str
    at: float
    due: float | None
    previous: float


class _Scored(NamedTuple):
    """The pairs that one invocation completed: how many, and how many each predictor had right."""

    pairs: int
    by_estimates: float
    by_recency: float


_NOTHING = _Scored(0, 0.0, 0.0)


class OrderScore:
    """Pairwise order accuracy of estimates, over the last `window` invocations that completed a pair.

    A pair is an invocation of A at clock value tA and the next one of another agent B, at tB > tA, at most 64
    invocations later; several of one agent at one clock value are one. Judged are the dues held just before
    tA (the last ones set at clock values < tA): the pair is right when due(A) < due(B), half right when they
    are equal. An agent without an estimate has due infinity. The last 8 changes of each agent are kept; a
    pair whose older due is no longer known is left out.

    The baseline is recency as an engine's LRU understands it: who was invoked last calls next. By it a pair
    is right when A's last invocation before tA was later than B's, and half right when they were equal; never
    is the earliest.
    """

    __slots__ = ("_changes", "_invoked", "_realised", "_scored", "_sums")

    def __init__(self, window: int = 256) -> None:
        self._changes: dict[str, deque[tuple[float, float]]] = {}
        self._invoked: dict[str, float] = {}
        self._realised: deque[_Realised] = deque(maxlen=_NEIGHBOURS)
        self._scored: deque[_Scored] = deque(maxlen=window)
        self._sums = _NOTHING

    @property
    def pairs(self) -> int:
        """How many pairs the figures rest on."""
        return self._sums.pairs

    @property
    def accuracy(self) -> float | None:
        """Share of pairs that the estimates ordered right, in 0..1; None without a pair."""
        return self._sums.by_estimates / self.pairs if self.pairs else None

    @property
    def recency_accuracy(self) -> float | None:
        """Share of the same pairs that recency ordered right, in 0..1; None without a pair."""
        return self._sums.by_recency / self.pairs if self.pairs else None

    def estimated(self, agent: str, due: float | None, now: float) -> None:
        """Note that from clock value `now` on the agent's due is `due` (None: nothing foreseen)."""
        value = math.inf if due is None else due
        changes = self._changes.get(agent)
        if changes is None:
            if due is None:
                return
            changes = self._changes[agent] = deque(maxlen=_CHANGES_KEPT)
        elif changes[-1][0] == now:
            changes.pop()
        elif changes[-1][1] == value:
            return
        changes.append((now, value))

    def invoked(self, agent: str, now: float) -> None:
        """Score an invocation at clock value `now` against those shortly before it."""
        previous = self._invoked.get(agent, -math.inf)
        if previous == now:
            return
        scored = _total(
            self._score(earlier, agent, previous)
            for earlier in self._realised
            if previous < earlier.at < now and earlier.agent != agent
        )
        if scored.pairs:
            self._keep(scored)
        self._realised.append(_Realised(agent, now, self._due_before(agent, now), previous))
        self._invoked[agent] = now

    def forget(self, agent: str) -> None:
        """Drop what is kept of a released agent; pairs already scored stay."""
        self._changes.pop(agent, None)
        self._invoked.pop(agent, None)

    def _score(self, earlier: _Realised, agent: str, previous: float) -> _Scored:
        due = self._due_before(agent, earlier.at)
        if due is None or earlier.due is None:
            return _NOTHING
        return _Scored(1, _rightness(earlier.due, due), _rightness(previous, earlier.previous))

    def _due_before(self, agent: str, clock: float) -> float | None:
        """Return the due held just before `clock`, or None where that is no longer known."""
        changes = self._changes.get(agent)
        if changes is None:
            return math.inf
        for at, due in reversed(changes):
            if at < clock:
                return due
        return None if len(changes) == _CHANGES_KEPT else math.inf

    def _keep(self, scored: _Scored) -> None:
        dropped = self._scored[0] if len(self._scored) == self._scored.maxlen else _NOTHING
        self._scored.append(scored)
        # Exact: the sums are multiples of one half.
        self._sums = _Scored(
            self.pairs + scored.pairs - dropped.pairs,
            self._sums.by_estimates + scored.by_estimates - dropped.by_estimates,
            self._sums.by_recency + scored.by_recency - dropped.by_recency,
        )


def _rightness(first: float, second: float) -> float:
    """Return 1 where `first` is smaller, one half where they are equal, else 0."""
    return 0.5 if first == second else float(first < second)


def _total(parts: Iterable[_Scored]) -> _Scored:
    pairs, by_estimates, by_recency = 0, 0.0, 0.0
    for part in parts:
        pairs += part.pairs
        by_estimates += part.by_estimates
        by_recency += part.by_recency
    return _Scored(pairs, by_estimates, by_recency)
