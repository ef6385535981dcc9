"""From played variants to figures: what each changed against the engine alone.

A repetition plays the same calls in every variant, on a workload of its own seed. Figures are medians over the
repetitions. An interval is the bootstrap's: repetitions are drawn anew with replacement, as many as there are, and
within each its steps, for both runs the same ones; the median of the drawn repetitions' ratios is one value, and the
interval holds the middle 90 % of them. So it tells how much the ratio hangs on which steps were played, and on which
repetitions; of one repetition alone it knows nothing of how the machine varies from run to run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from random import Random
from statistics import median, quantiles
from typing import Any, Final

import msgspec

from bench.demo.measure import after, figures, wasted_share
from bench.demo.runner import Run
from bench.engine.places import Performance
from bench.engine.result import Numbers
from bench.engine.variants import ALONE, BOTH, HOST_LRU, SHUFFLED

DRAWS: Final = 2000

Performances = Mapping[str, Sequence[Performance]]
"""By variant, one of each repetition."""


def compare(performances: Performances, warmup: int) -> dict[str, Numbers]:
    """Return the numbers of all variants of one class; the first `warmup` steps of each run don't count."""
    played = {name: [after(one.run, warmup) for one in ours] for name, ours in performances.items()}
    return {name: _numbers(name, performances, played, warmup) for name in performances}


def ratio(base: Sequence[Sequence[float]], ours: Sequence[Sequence[float]]) -> float:
    """Return the median of the repetitions' makespan ratios, base over ours, from the seconds of their steps."""
    return median(sum(one) / sum(other) for one, other in zip(base, ours, strict=True))


def interval(
    base: Sequence[Sequence[float]], ours: Sequence[Sequence[float]], *, draws: int = DRAWS
) -> tuple[float, float]:
    """Return the 90 % interval of that ratio. The steps of both are paired."""
    pairs = [list(zip(one, other, strict=True)) for one, other in zip(base, ours, strict=True)]
    rng = Random(1)
    ratios = []
    for _ in range(draws):
        drawn = [rng.choices(steps, k=len(steps)) for steps in rng.choices(pairs, k=len(pairs))]
        ratios.append(
            median(sum(one for one, _ in steps) / sum(other for _, other in steps) for steps in drawn)
        )
    cuts = quantiles(ratios, n=20, method="inclusive")
    return cuts[0], cuts[-1]


def step_seconds(run: Run) -> list[float]:
    """Return how long each step took."""
    return [end - begun for begun, end in pairwise((0.0, *run.ends))]


def recomputed(one: Performance, warmup: int) -> int:
    """Return how many prompt tokens the engine computed: of the counted calls, and for prefetches meanwhile."""
    answers = after(one.run, warmup).answers
    return one.prefetched + sum(a.prompt_tokens - a.cached for a in answers if a.error is None)


def _numbers(
    name: str, performances: Performances, played: Mapping[str, Sequence[Run]], warmup: int
) -> Numbers:
    ours, base = performances[name], performances[ALONE]
    found, of_base = ([figures(run) for run in played[which]] for which in (name, ALONE))
    tokens, of_alone = ([recomputed(one, warmup) for one in of] for of in (ours, base))
    seconds = {which: [step_seconds(run) for run in runs] for which, runs in played.items()}
    low, high = interval(seconds[ALONE], seconds[name])
    numbers = Numbers(
        calls=round(median(one.requests for one in found)),
        makespan=_rounded(one.makespan for one in found),
        makespan_ratio=round(ratio(seconds[ALONE], seconds[name]), 4),
        makespan_ratio_low=round(low, 4),
        makespan_ratio_high=round(high, 4),
        ttft_mean=_rounded(one.ttft_mean for one in found),
        ttft_mean_ratio=_rounded(_over(of_base, found, "ttft_mean")),
        ttft_p95=_rounded(one.ttft_p95 for one in found),
        ttft_p95_ratio=_rounded(_over(of_base, found, "ttft_p95")),
        cached_share=_rounded(one.cached_share for one in found),
        recomputed_tokens=round(median(tokens)),
        recomputed_tokens_ratio=_rounded(
            its / max(1, alones) for its, alones in zip(tokens, of_alone, strict=True)
        ),
        prefetch_precision=_reported(ours, _precision),
        prefetch_waste=_reported(ours, _waste),
        prefetched_tokens=round(median(one.prefetched for one in ours)),
        # What is shuffled on its way to the plug-in the daemon doesn't score.
        order_accuracy=None if name == SHUFFLED else _reported(ours, lambda report: report["order_accuracy"]),
        recency_accuracy=_reported(ours, lambda report: report["recency_accuracy"]),
        daemon_cpu_seconds=_known(one.cpu_seconds for one in ours),
        failed_requests=sum(figures(one.run).failed for one in ours),
        **_traffic_numbers(ours, base),
    )
    if name != BOTH:
        return numbers
    low, high = interval(seconds[SHUFFLED], seconds[name])
    return msgspec.structs.replace(
        numbers,
        over_shuffled=round(ratio(seconds[SHUFFLED], seconds[name]), 4),
        over_shuffled_low=round(low, 4),
        over_shuffled_high=round(high, 4),
        ttft_over_host_lru=_rounded(_over([figures(run) for run in played[HOST_LRU]], found, "ttft_mean")),
    )


def _traffic_numbers(ours: Sequence[Performance], base: Sequence[Performance]) -> dict[str, Any]:
    """Of requests that nobody announced, where there were any."""
    theirs, of_base = ([one.traffic for one in of if one.traffic is not None] for of in (ours, base))
    if not theirs:
        return {}
    return {
        "unannounced": round(median(len(traffic.requests) for traffic in theirs)),
        "unannounced_ttft_mean": _rounded(traffic.ttft_mean for traffic in theirs),
        "unannounced_ttft_mean_ratio": _rounded(_over(of_base, theirs, "ttft_mean")),
        "unannounced_failed": sum(traffic.failed for traffic in theirs),
    }


def _over(base: Sequence[object], ours: Sequence[object], what: str) -> Iterator[float]:
    for one, other in zip(base, ours, strict=True):
        yield getattr(one, what) / getattr(other, what)


def _precision(report: dict[str, Any]) -> float | None:
    return report["prefetches_used"] / report["prefetches"] if report["prefetches"] else None


def _waste(report: dict[str, Any]) -> float | None:
    return wasted_share(report) if report["prefetched_tokens"] else None


def _reported(
    performances: Sequence[Performance], figure: Callable[[dict[str, Any]], float | None]
) -> float | None:
    return _known(None if one.report is None else figure(one.report) for one in performances)


def _known(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _rounded(known) if known else None


def _rounded(values: Iterable[float]) -> float:
    return round(median(values), 4)
