"""How well each estimator of a stream foretells its invocations, and which of them are worth listening to."""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from scalesim_estimators.nearest import NOBODY, Nearest, nearest
from scalesim_estimators.notes import UNKNOWN, Notes, Row, held_before
from scalesim_estimators.roster import Roster
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
_SLACK = 0.1


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
        "_agents",
        "_always",
        "_differing",
        "_learned",
        "_needed",
        "_notes",
        "_realised",
        "_scores",
        "_seen",
        "admitted",
        "estimated",
        "names",
    )

    def __init__(
        self,
        names: Sequence[str],
        agents: Roster | None = None,
        *,
        always: Collection[str] = (),
        window: int = 256,
        day: float = 1.0,
    ) -> None:
        """Judge the estimators of these `names`, in the blend's order; those of `always` are never judged away. In the
        calendar of dues a day has so many clock units."""
        self.names = tuple(names)
        self._agents = Roster() if agents is None else agents
        self._notes = Notes(self._agents, len(names), day)
        self.estimated = self._notes.note
        """Note what estimators say of agents: their names, what is said of them, and the clock value from which on."""
        self.admitted = [True] * (len(names) - 1) + [False]
        self._always = [name in always for name in names]
        self._scores = [Score(window) for _ in (*names, BLEND)]
        self._seen = [0] * len(names)
        """Per estimator, the pairs that it has decided since the last verdict on it."""
        self._needed = [EVIDENCE] * len(names)
        self._learned = len(names) - 1
        self._realised: deque[_Realised] = deque(maxlen=_NEIGHBOURS)
        self._differing: deque[Iterator[str | None]] = deque()
        """Per verdict who is still to be looked at. Between two, the estimate of who was looked at is by the first."""

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

    def lapsed(self, earliest: float, most: int = sys.maxsize) -> list[str]:
        """Return up to `most` agents of which the nearest due that was noted lies before `earliest`, each once."""
        return self._notes.lapsed(earliest, most)

    def behind(self, earliest: float) -> bool:
        """Whether there are agents that may have lapsed, or have another estimate by a verdict, and weren't named."""
        return bool(self._differing) or self._notes.may_have_lapsed(earliest)

    def differing(self, most: int = sys.maxsize) -> list[str]:
        """Look at up to `most` agents more after a verdict; return those that have another estimate by it."""
        found: list[str] = []
        while self._differing and most:
            looked_at = list(islice(self._differing[0], most))
            found += filter(None, looked_at)
            most -= len(looked_at)
            if most:
                self._differing.popleft()
        return found

    def invoked(self, agent: str, now: float, step: float) -> bool:
        """Score an invocation at clock value `now` of a clock that advances by `step`, before estimators learn of it.
        Return whether this changes who is admitted: then `differing` names the agents that have another estimate."""
        previous = self._agents.last_call(agent)
        if previous == now:
            return False
        floor = now - 2 * step
        rows = self._notes.held(agent, now)
        row = held_before(rows, now)
        since = now - previous
        self._judge_forecasts(row, now, floor, max(step, _SLACK * since) if since < math.inf else step)
        before = self.admitted
        for index in self._judge_order(agent, rows, now, previous):
            self._decide(index)
        if self.admitted != before:
            # Pairs are of invocations that the same estimators foresaw.
            self._realised.clear()
        if row is not UNKNOWN:
            foreseen = nearest(row.dues, self.admitted, floor)
            self._realised.append(_Realised(agent, now, floor, row.dues, foreseen, previous))
        self._notes.oldest = self._realised[0].at if self._realised else math.inf
        self._agents.call(agent, now)
        if self.admitted == before:
            return False
        self._differing.append(self._compared(before))
        return True

    def forget(self, agent: str) -> None:
        """Drop what is kept of a released agent; what was scored stays."""
        self._notes.forget(agent)
        self._agents.leave(agent)

    def _compared(self, admitted: Sequence[bool]) -> Iterator[str | None]:
        """Yield each agent whose estimate is another's than if those were `admitted`, None for each other one."""
        for agent, dues in self._notes.newest():
            same = nearest(dues, admitted).whose == nearest(dues, self.admitted).whose
            yield None if same else agent

    def _judge_forecasts(self, row: Row, now: float, floor: float, slack: float) -> None:
        for index, (due, score) in enumerate(zip(row.dues, self._scores, strict=False)):
            hit = abs(now - due) <= slack
            score.came(None if due == math.inf else Forecast(now - due, row.confidence(index), hit))
        due, whose, _ = nearest(row.dues, self.admitted, floor)
        hit = abs(now - due) <= slack
        self._scores[-1].came(None if whose < 0 else Forecast(now - due, row.confidence(whose), hit))

    def _judge_order(self, agent: str, rows: Sequence[Row], now: float, previous: float) -> list[int]:
        """Score the pairs that this invocation completes; return the estimators that decided some of them."""
        outsiders = [index for index, admitted in enumerate(self.admitted) if not admitted]
        count, all_right, all_by_recency, disputed, won = 0, 0.0, 0.0, 0, 0
        decided: dict[int, list[float]] = {}
        row, b, looked_at = UNKNOWN, NOBODY, now
        for first in self._realised:
            if first.agent == agent or not previous < first.at < now:
                continue
            if first.at != looked_at:
                looked_at, before = first.at, row
                row = held_before(rows, first.at)
                if row is not before or b.due < first.floor or b.otherwise < first.floor:
                    b = nearest(row.dues, self.admitted, first.floor)
            if row is UNKNOWN:
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
                if first.dues[index] == row.dues[index] == math.inf:
                    continue
                due_a = self._joined(a, index, first.dues[index], first.floor)
                due_b = self._joined(b, index, row.dues[index], first.floor)
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
