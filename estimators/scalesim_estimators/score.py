"""What one estimator's forecasts came to, over a sliding window."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, fields
from typing import NamedTuple, Self


class Pairs(NamedTuple):
    """Pairs of invocations, and how many of them were ordered right (a tie counts one half): by the blend with the
    estimator, by the blend without it, and by recency. Of those `disputed` the blend and recency, neither with a tie,
    said the opposite, and the blend `won` some; this is counted for the blend itself only."""

    number: int = 0
    right: float = 0.0
    without: float = 0.0
    by_recency: float = 0.0
    disputed: int = 0
    won: int = 0


class Forecast(NamedTuple):
    """An estimate that an invocation came to: clock units from its due until the invocation, its confidence, and
    whether it was a hit."""

    error: float
    confidence: float
    hit: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """Sums over a window; those of several streams with the same clock may be added up.

    `pairs` were decided by the estimator, and of them `right`, `right_without` and `right_by_recency` were ordered
    right, with it, without it and by recency. Those `disputed` are known for a blend only: it and recency said the
    opposite, and it `won` some. Of the last `invocations` the estimator had `foreseen` some: `errors` sums the clock
    units by which these were early or late, `hits` counts those that came in time, `confidences` sums what it had given
    them, and `squares` the squared differences between confidence and outcome (1 for a hit, else 0).
    """

    pairs: int = 0
    right: float = 0.0
    right_without: float = 0.0
    right_by_recency: float = 0.0
    disputed: int = 0
    won: int = 0
    invocations: int = 0
    foreseen: int = 0
    errors: float = 0.0
    hits: int = 0
    confidences: float = 0.0
    squares: float = 0.0

    def __add__(self, other: Self) -> Self:
        names = [field.name for field in fields(self)]
        return type(self)(*(getattr(self, name) + getattr(other, name) for name in names))

    @property
    def order_accuracy(self) -> float | None:
        """Share of the pairs that were ordered right, in 0..1; None without a pair."""
        return _mean(self.right, self.pairs)

    @property
    def accuracy_without(self) -> float | None:
        """Share of the pairs that the others alone ordered right; None without a pair."""
        return _mean(self.right_without, self.pairs)

    @property
    def recency_accuracy(self) -> float | None:
        """Share of the pairs that recency ordered right; None without a pair."""
        return _mean(self.right_by_recency, self.pairs)

    @property
    def coverage(self) -> float | None:
        """Share of the invocations that were foreseen at all; None without an invocation."""
        return _mean(self.foreseen, self.invocations)

    @property
    def lead_error(self) -> float | None:
        """Mean clock units between due and invocation; None where none was foreseen."""
        return _mean(self.errors, self.foreseen)

    @property
    def hit_rate(self) -> float | None:
        """Share of the foreseen invocations that came in time; None where none was foreseen."""
        return _mean(self.hits, self.foreseen)

    @property
    def confidence(self) -> float | None:
        """Mean confidence in the foreseen invocations: calibrated where it equals the hit rate."""
        return _mean(self.confidences, self.foreseen)

    @property
    def brier(self) -> float | None:
        """Brier score of the confidence, 0 (best) to 1 (G. W. Brier, Monthly Weather Review 78, 1950)."""
        return _mean(self.squares, self.foreseen)


class Score:
    """The last `window` invocations that completed a pair decided by the estimator, and the last `window` of all."""

    __slots__ = ("_forecasts", "_pairs", "total")

    def __init__(self, window: int) -> None:
        self._pairs: deque[Pairs] = deque(maxlen=window)
        self._forecasts: deque[Forecast | None] = deque(maxlen=window)
        self.total = Pairs()

    def ordered(self, pairs: Pairs) -> None:
        """Take in the pairs that one invocation completed."""
        dropped = self._pairs[0] if len(self._pairs) == self._pairs.maxlen else Pairs()
        self._pairs.append(pairs)
        # Exact: the sums are multiples of one half.
        self.total = Pairs(
            self.total.number + pairs.number - dropped.number,
            self.total.right + pairs.right - dropped.right,
            self.total.without + pairs.without - dropped.without,
            self.total.by_recency + pairs.by_recency - dropped.by_recency,
            self.total.disputed + pairs.disputed - dropped.disputed,
            self.total.won + pairs.won - dropped.won,
        )

    def came(self, forecast: Forecast | None) -> None:
        """Take in what was forecast of one invocation, None for nothing."""
        self._forecasts.append(forecast)

    def figures(self) -> Figures:
        """Return the sums over the window."""
        known = [forecast for forecast in self._forecasts if forecast is not None]
        return Figures(
            *self.total,
            len(self._forecasts),
            len(known),
            sum(abs(forecast.error) for forecast in known),
            sum(forecast.hit for forecast in known),
            sum(forecast.confidence for forecast in known),
            sum((forecast.confidence - forecast.hit) ** 2 for forecast in known),
        )


def _mean(amount: float, count: int) -> float | None:
    return amount / count if count else None
