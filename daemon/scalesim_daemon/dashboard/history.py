"""What was counted over the last hour, noted every few seconds, so that a page that opens shows how it has come about.

Pure: what there is to note is handed in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from scalesim_adapters.base import FirstTokens
from scalesim_daemon.view import EngineView
from scalesim_estimators import Figures

SAMPLE_SECONDS = 5.0
KEPT = 720


@dataclass(frozen=True, slots=True)
class Sample:
    """Counts over all engines since the daemon's start, as of the wall time `at`.

    Calls came with `prefix_tokens` of known prefixes, of which `found_tokens` were on the device. So many requests,
    ours among them, had their `first_tokens` after `first_token_seconds` in all, by the engines' own count; unknown
    while no engine tells. The shares of pairs of calls that estimates and recency put in the right order are those of
    the last pairs.
    """

    at: float
    prefix_tokens: int
    found_tokens: int
    first_tokens: int | None
    first_token_seconds: float | None
    prefetches: int
    prefetches_used: int
    prefetches_wasted: int
    prefetched_tokens: int
    prefetched_tokens_wasted: int
    order_accuracy: float | None
    recency_accuracy: float | None


class History:
    """The samples of the last hour, the oldest first.

    An engine's count begins anew with each restart, this one doesn't. Our requests for one token are among its own, and
    can't be left out: what they took here is more than the engine counts of it.
    """

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=KEPT)
        self._told: dict[str, FirstTokens] = {}
        self._requests = 0
        self._seconds = 0.0

    def note(self, views: Iterable[EngineView], order: Figures, at: float) -> None:
        """Take a sample at wall time `at`."""
        views = list(views)
        for view in views:
            pressure = view.quiet.pressure
            if pressure is not None and pressure.first_tokens is not None:
                self._hear(view.name, pressure.first_tokens)
        ledgers = [view.ledger for view in views]
        self._samples.append(
            Sample(
                at=at,
                prefix_tokens=sum(ledger.prefix_tokens for ledger in ledgers),
                found_tokens=sum(ledger.found_tokens for ledger in ledgers),
                first_tokens=self._requests if self._told else None,
                first_token_seconds=self._seconds if self._told else None,
                prefetches=sum(ledger.prefetches for ledger in ledgers),
                prefetches_used=sum(ledger.used for ledger in ledgers),
                prefetches_wasted=sum(ledger.wasted for ledger in ledgers),
                prefetched_tokens=sum(ledger.tokens for ledger in ledgers),
                prefetched_tokens_wasted=sum(ledger.tokens_wasted for ledger in ledgers),
                order_accuracy=order.order_accuracy,
                recency_accuracy=order.recency_accuracy,
            )
        )

    def since(self, at: float) -> Iterator[Sample]:
        """Yield the samples that were taken after the wall time `at`."""
        return (sample for sample in self._samples if sample.at > at)

    def _hear(self, engine: str, told: FirstTokens) -> None:
        """What an engine has counted before it is heard for the first time was not in this daemon's time."""
        before = self._told.get(engine, told)
        if told.count < before.count:
            before = FirstTokens(0, 0.0)
        self._requests += told.count - before.count
        self._seconds += told.seconds - before.seconds
        self._told[engine] = told
