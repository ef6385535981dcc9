"""From played variants to figures: what each changed against the engine alone.

A repetition plays the same calls in every variant, on a workload of its own seed. Figures are medians over the
repetitions. An interval is the bootstrap's: the pairs (repetition, step) are drawn anew with replacement, as many as
there are, and each drawn set gives one ratio of the sums of the steps' seconds, alone over the variant; the interval
holds the middle 90 % of these ratios. So it tells how much the ratio hangs on which steps were played; that the machine
is slower during one whole run than during another shows only in so far as repetitions differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from random import Random
from statistics import median, quantiles
from typing import Any, Final

from bench.demo.measure import after, figures, wasted_share
from bench.demo.runner import Run
from bench.engine.places import Performance
from bench.engine.result import Numbers
from bench.engine.variants import ALONE

DRAWS: Final = 2000

Performances = Mapping[str, Sequence[Performance]]
"""By variant, one of each repetition."""


def compare(performances: Performances, warmup: int) -> dict[str, Numbers]:
    """Return the numbers of all variants of one class; the first `warmup` steps of each run don't count."""
    alone = performances[ALONE]
    return {name: _numbers(alone, ours, warmup) for name, ours in performances.items()}


def interval(
    alone: Sequence[Sequence[float]], ours: Sequence[Sequence[float]], *, draws: int = DRAWS
) -> tuple[float, float]:
    """Return the 90 % interval of the makespan ratio from the seconds of each repetition's steps, which are paired."""
    pairs = [pair for one, other in zip(alone, ours, strict=True) for pair in zip(one, other, strict=True)]
    rng = Random(1)
    ratios = []
    for _ in range(draws):
        drawn = rng.choices(pairs, k=len(pairs))
        ratios.append(sum(one for one, _ in drawn) / sum(other for _, other in drawn))
    cuts = quantiles(ratios, n=20, method="inclusive")
    return cuts[0], cuts[-1]


def step_seconds(run: Run) -> list[float]:
    """Return how long each step took."""
    return [end - begun for begun, end in pairwise((0.0, *run.ends))]


def recomputed(one: Performance, warmup: int) -> int:
    """Return how many prompt tokens the engine computed: of the counted calls, and for prefetches meanwhile."""
    answers = after(one.run, warmup).answers
    return one.prefetched + sum(a.prompt_tokens - a.cached for a in answers if a.error is None)


def _numbers(alone: Sequence[Performance], ours: Sequence[Performance], warmup: int) -> Numbers:
    played = [after(one.run, warmup) for one in ours]
    base = [after(one.run, warmup) for one in alone]
    found, of_base = [figures(run) for run in played], [figures(run) for run in base]
    tokens, of_alone = ([recomputed(one, warmup) for one in of] for of in (ours, alone))
    ratios = [one.makespan / other.makespan for one, other in zip(of_base, found, strict=True)]
    low, high = interval([step_seconds(run) for run in base], [step_seconds(run) for run in played])
    return Numbers(
        calls=round(median(one.requests for one in found)),
        makespan=_rounded(one.makespan for one in found),
        makespan_ratio=_rounded(ratios),
        makespan_ratio_low=round(low, 4),
        makespan_ratio_high=round(high, 4),
        ttft_mean=_rounded(one.ttft_mean for one in found),
        ttft_mean_ratio=_rounded(
            one.ttft_mean / other.ttft_mean for one, other in zip(of_base, found, strict=True)
        ),
        ttft_p95=_rounded(one.ttft_p95 for one in found),
        cached_share=_rounded(one.cached_share for one in found),
        recomputed_tokens=round(median(tokens)),
        recomputed_tokens_ratio=_rounded(
            its / max(1, alones) for its, alones in zip(tokens, of_alone, strict=True)
        ),
        prefetch_precision=_reported(ours, _precision),
        prefetch_waste=_reported(ours, _waste),
        prefetched_tokens=round(median(one.prefetched for one in ours)),
        order_accuracy=_reported(ours, lambda report: report["order_accuracy"]),
        recency_accuracy=_reported(ours, lambda report: report["recency_accuracy"]),
        daemon_cpu_seconds=_known(one.cpu_seconds for one in ours),
        failed_requests=sum(figures(one.run).failed for one in ours),
    )


def _precision(report: dict[str, Any]) -> float | None:
    known = report["prefetches_used"] + report["prefetches_wasted"]
    return report["prefetches_used"] / known if known else None


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
