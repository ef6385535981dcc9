"""How well each estimator of a stream foretells its invocations, and which of them are worth listening to."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from scalesim_estimators.base import Estimate
from scalesim_estimators.nearest import NOBODY, Nearest, nearest
from scalesim_estimators.score import Figures, Forecast, Pairs, Score

BLEND = "blend"
"""The name of the blend's own figures."""
EVIDENCE = 128
MOST_EVIDENCE = 16 * EVIDENCE
"""Pairs that an estimator decides until the first verdict on it, and between two at most."""
MARGIN = 0.02
"""Share of the pairs by which an estimator has to be worse to be dropped, and better to come back."""
TRUST = 4
"""Pairs that an estimate is taken to have won against recency before the first of them was seen."""

_NEIGHBOURS = 32
_CHANGES_KEPT = 8
_SLACK = 0.1
_USUAL_KEPT = 1024


_Row = tuple[float, tuple[float, ...], tuple[float, ...]]
"""From which clock value on what the estimators said of one agent, in their order: dues, infinity for nothing, and
confidences. Plain tuples of numbers cost the garbage collector nothing."""

_UNKNOWN: _Row = (math.nan, (), ())


class _Realised(NamedTuple):
    """One invocation, and what was known just before it: dues before `floor` had lapsed."""

    agent: str
    at: float
    floor: float
    dues: tuple[float, ...]
    foreseen: Nearest
    previous: float


class Quality:
    """Scores the estimates that preceded each invocation, and admits estimators by that.

    A pair is an invocation of A at clock value tA and the next one of another agent B, at tB > tA, at most 32
    invocations later; several of one agent at one clock value are one. Judged are the dues held just before
    tA (the last ones set at clock values < tA; by then what was overdue by more than a step has lapsed): the
    pair is right when due(A) < due(B), half right when they are equal. An agent without an estimate has due
    infinity; of two without one recency decides, as it does in the engine. The last 8 changes of each agent
    are kept; a pair whose older dues are no longer known is left out. The baseline is recency as an engine's
    LRU understands it: who was invoked last calls next. By it a pair is right when A's last invocation before
    tA was later than B's; never is the earliest.

    The blend is scored on all pairs; without it all would be left to recency. An estimator is scored on those
    that it decides: where the blend has another due for A or B with it than without it. So a specialist is not
    blamed for agents that it does not speak of, and one that calls agents near too early is, though it may
    order those well that it calls near.

    An estimator is admitted while, on the pairs that it decides, the blend with it orders at least as well as
    the blend without it and as recency. One that is dropped is scored all the while, and comes back when the
    blend is better with it. So that nothing goes back and forth between equals, a verdict needs 128 pairs, twice
    as many each time that it changes (up to 2,048), and a difference of 2 % of them. What is told starts
    admitted, by the simulation's word. What is learned, the last of `names`, has to prove itself first.

    A forecast is a hit where the invocation comes within a step of its due, or within a tenth of the time
    since the agent's last invocation. The figures cover the last `window` invocations.
    """

    __slots__ = (
        "_always",
        "_dropped",
        "_invoked",
        "_learned",
        "_needed",
        "_realised",
        "_rows",
        "_scores",
        "_seen",
        "_silence",
        "_usual",
        "admitted",
        "names",
    )

    def __init__(self, names: Sequence[str], *, always: Collection[str] = (), window: int = 256) -> None:
        """Judge the estimators of these `names`, in the blend's order; those of `always` are never judged away."""
        self.names = tuple(names)
        self.admitted = [True] * (len(names) - 1) + [False]
        self._always = [name in always for name in names]
        self._scores = [Score(window) for _ in (*names, BLEND)]
        self._seen = [0] * len(names)
        """Per estimator, the pairs that it has decided since the last verdict on it."""
        self._needed = [EVIDENCE] * len(names)
        self._learned = len(names) - 1
        self._silence: _Row = (-math.inf, (math.inf,) * len(names), (0.0,) * len(names))
        self._usual: dict[tuple[float, ...], tuple[float, ...]] = {}
        self._rows: dict[str, list[_Row]] = {}
        self._dropped: set[str] = set()
        """Agents of which older rows are no longer known."""
        self._invoked: dict[str, float] = {}
        self._realised: deque[_Realised] = deque(maxlen=_NEIGHBOURS)

    def figures(self) -> Mapping[str, Figures]:
        """Return the figures of each estimator, and those of the blend."""
        return {name: score.figures() for name, score in zip((*self.names, BLEND), self._scores, strict=True)}

    def blend_figures(self) -> Figures:
        """Return the figures of the blend."""
        return self._scores[-1].figures()

    def chance(self) -> float:
        """Return how likely it is that the blend is right about who of two agents calls first where recency says the
        opposite: the share of such pairs that it ordered right.

        To give an agent memory that another has, who called later, is to bet on that. Until there is evidence the
        simulation's word is trusted.
        """
        total = self._scores[-1].total
        return (total.won + TRUST) / (total.disputed + TRUST)

    def is_admitted(self, name: str) -> bool:
        """Return whether an estimator is admitted; unknown names raise `ValueError`."""
        return self.admitted[self.names.index(name)]

    def estimated(
        self, agent: str, dues: tuple[float, ...], estimates: Sequence[Estimate | None], now: float
    ) -> None:
        """Note what each estimator says of the agent from clock value `now` on, and the dues of that, infinity
        for None."""
        rows = self._rows.get(agent)
        if rows is None:
            if min(dues) == math.inf:
                return
            self._rows[agent] = [(now, dues, self._confidences(estimates))]
            return
        if rows[-1][0] == now:
            rows.pop()
        if not rows or rows[-1][1] != dues:
            if len(rows) == _CHANGES_KEPT:
                self._dropped.add(agent)
                del rows[0]
            rows.append((now, dues, self._confidences(estimates)))

    def _confidences(self, estimates: Sequence[Estimate | None]) -> tuple[float, ...]:
        """Return how sure the estimators are. Most agents are spoken of alike: then it is the same object."""
        now = tuple([0.0 if estimate is None else estimate.confidence for estimate in estimates])
        known = self._usual.get(now)
        if known is None and len(self._usual) < _USUAL_KEPT:
            known = self._usual[now] = now
        return now if known is None else known

    def invoked(self, agent: str, now: float, step: float) -> Collection[str]:
        """Score an invocation at clock value `now` of a clock that advances by `step`; where this changes who is
        admitted, return the agents that have another estimate by that."""
        previous = self._invoked.get(agent, -math.inf)
        if previous == now:
            return ()
        floor = now - 2 * step
        row = self._row_before(agent, now)
        since = now - previous
        self._judge_forecasts(row, now, floor, max(step, _SLACK * since) if since < math.inf else step)
        before = self.admitted
        for index in self._judge_order(agent, now, previous):
            self._decide(index)
        if self.admitted != before:
            # Pairs are of invocations that the same estimators foresaw.
            self._realised.clear()
        if row is not _UNKNOWN:
            foreseen = nearest(row[1], self.admitted, floor)
            self._realised.append(_Realised(agent, now, floor, row[1], foreseen, previous))
        self._invoked[agent] = now
        return () if self.admitted == before else self._differing(before)

    def forget(self, agent: str) -> None:
        """Drop what is kept of a released agent; what was scored stays."""
        self._rows.pop(agent, None)
        self._dropped.discard(agent)
        self._invoked.pop(agent, None)

    def _differing(self, admitted: Sequence[bool]) -> list[str]:
        """Return the agents whose estimate is another's than if those were `admitted`."""
        return [
            agent
            for agent, rows in self._rows.items()
            if nearest(rows[-1][1], admitted).whose != nearest(rows[-1][1], self.admitted).whose
        ]

    def _row_before(self, agent: str, clock: float) -> _Row:
        """Return what was held just before `clock`; `_UNKNOWN` where that is no longer known."""
        for row in reversed(self._rows.get(agent, ())):
            if row[0] < clock:
                return row
        return _UNKNOWN if agent in self._dropped else self._silence

    def _judge_forecasts(self, row: _Row, now: float, floor: float, slack: float) -> None:
        _, dues, confidences = row
        for due, confidence, score in zip(dues, confidences, self._scores, strict=False):
            score.came(None if due == math.inf else Forecast(now - due, confidence, abs(now - due) <= slack))
        due, whose, _ = nearest(dues, self.admitted, floor)
        hit = abs(now - due) <= slack
        self._scores[-1].came(None if whose < 0 else Forecast(now - due, confidences[whose], hit))

    def _judge_order(self, agent: str, now: float, previous: float) -> list[int]:
        """Score the pairs that this invocation completes; return the estimators that decided some of them."""
        outsiders = [index for index, admitted in enumerate(self.admitted) if not admitted]
        count, all_right, all_by_recency, disputed, won = 0, 0.0, 0.0, 0, 0
        decided: dict[int, list[float]] = {}
        row, b, looked_at = _UNKNOWN, NOBODY, now
        for first in self._realised:
            if first.agent == agent or not previous < first.at < now:
                continue
            if first.at != looked_at:
                looked_at, before = first.at, row
                row = self._row_before(agent, first.at)
                if row is not before or b.due < first.floor or b.otherwise < first.floor:
                    b = nearest(row[1], self.admitted, first.floor)
            if row is _UNKNOWN:
                continue
            a = first.foreseen
            by_recency = _rightness(previous, first.previous)
            right = _order(a.due, b.due, by_recency)
            count += 1
            all_right += right
            all_by_recency += by_recency
            if right + by_recency == 1.0 and right != by_recency:
                disputed += 1
                won += right == 1.0
            if a.whose >= 0:
                due_b = b.otherwise if b.whose == a.whose else b.due
                if a.otherwise != a.due or due_b != b.due:
                    sums = decided.setdefault(a.whose, [0, 0.0, 0.0, 0.0])
                    _count(sums, right, _order(a.otherwise, due_b, by_recency), by_recency)
            if b.whose >= 0 and b.whose != a.whose and b.otherwise != b.due:
                sums = decided.setdefault(b.whose, [0, 0.0, 0.0, 0.0])
                _count(sums, right, _order(a.due, b.otherwise, by_recency), by_recency)
            for index in outsiders:
                if first.dues[index] == row[1][index] == math.inf:
                    continue
                due_a = self._joined(a, index, first.dues[index], first.floor)
                due_b = self._joined(b, index, row[1][index], first.floor)
                if due_a != a.due or due_b != b.due:
                    sums = decided.setdefault(index, [0, 0.0, 0.0, 0.0])
                    _count(sums, _order(due_a, due_b, by_recency), right, by_recency)
        if count:
            self._scores[-1].ordered(Pairs(count, all_right, all_by_recency, all_by_recency, disputed, won))
        for index, sums in decided.items():
            self._scores[index].ordered(Pairs(int(sums[0]), sums[1], sums[2], sums[3]))
            self._seen[index] += int(sums[0])
        return list(decided)

    def _joined(self, foreseen: Nearest, index: int, due: float, floor: float) -> float:
        """Return the due that would hold if the estimator at `index` were admitted, who says `due`."""
        if not floor <= due < math.inf:
            return foreseen.due
        if index == self._learned:
            return due if foreseen.whose < 0 else foreseen.due
        return due if due < foreseen.due or foreseen.whose == self._learned else foreseen.due

    def _decide(self, index: int) -> None:
        """Give a verdict on an estimator, where there is evidence for one."""
        if self._seen[index] < self._needed[index] or self._always[index]:
            return
        self._seen[index] = 0
        total = self._scores[index].total
        gain = (total.right - max(total.without, total.by_recency)) / total.number
        admitted = gain > (-MARGIN if self.admitted[index] else MARGIN)
        if admitted != self.admitted[index]:
            self.admitted = [*self.admitted[:index], admitted, *self.admitted[index + 1 :]]
            self._needed[index] = min(2 * self._needed[index], MOST_EVIDENCE)


def _count(sums: list[float], right: float, without: float, by_recency: float) -> None:
    sums[0] += 1
    sums[1] += right
    sums[2] += without
    sums[3] += by_recency


def _order(due_a: float, due_b: float, by_recency: float) -> float:
    """Return how right it is to say that what is due at `due_a` comes before what is due at `due_b`."""
    return by_recency if due_a == due_b == math.inf else _rightness(due_a, due_b)


def _rightness(first: float, second: float) -> float:
    """Return 1 where `first` is smaller, one half where they are equal, else 0."""
    return 0.5 if first == second else float(first < second)
