"""From played runs to figures: what the sidecar changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import fmean, median, quantiles
from typing import Any

from bench.demo.prompts import PREFIX_TOKENS
from bench.demo.runner import Run


@dataclass(frozen=True, slots=True)
class Figures:
    """One run in figures: seconds, and shares in 0..1. TTFT and shares count answered requests only."""

    steps: int
    requests: int
    failed: int
    pace: float
    makespan: float
    ttft_mean: float
    ttft_p95: float
    cached_share: float


@dataclass(frozen=True, slots=True)
class InsideResult:
    """The run at the pace with the daemon's report, and three without pause; of these the steps after the first
    `warm_up` count."""

    paced: Run
    report: dict[str, Any]
    alone: Run
    lru_tier: Run
    ours: Run
    warm_up: int

    @property
    def counted(self) -> tuple[Run, Run, Run]:
        """The counted parts of the runs without pause: alone, with vLLM's tier, with ours."""
        alone, lru_tier, ours = (after(run, self.warm_up) for run in (self.alone, self.lru_tier, self.ours))
        return alone, lru_tier, ours


def after(run: Run, steps: int) -> Run:
    """Return the part of a run that comes after its first `steps` steps."""
    if not steps:
        return run
    begun = run.ends[steps - 1]
    ends = tuple(end - begun for end in run.ends[steps:])
    return replace(run, ends=ends, answers=tuple(a for a in run.answers if a.step > steps))


@dataclass(frozen=True, slots=True)
class Result:
    """The whole demo: the pair at the pace, the runs without pause, and what the daemon said of the first.

    The engine alone ran without pause under both sets of flags; `stock_is_better` tells under which of them it also
    ran at the pace. `report` is the daemon's `/v1/report`; `trace` is where a recorded workload is from; `inside` is
    what the engine with our plug-in did, None of an emulated engine, which can't load one.
    """

    engine: str
    workload: str
    stock_is_better: bool
    cold_prefill: float
    alone: Run
    ours: Run
    stock_rushed: Run
    flags_rushed: Run
    ours_rushed: Run
    report: dict[str, Any]
    inside: InsideResult | None = None
    trace: dict[str, str | None] | None = None

    @property
    def alone_flags(self) -> str:
        """Whose flags the engine alone ran with."""
        return "vLLM's default" if self.stock_is_better else "our"

    @property
    def alone_rushed(self) -> Run:
        """The run alone without pause, under the better flags."""
        return self.stock_rushed if self.stock_is_better else self.flags_rushed

    @property
    def runs(self) -> tuple[Run, ...]:
        """The four runs to compare: at the pace alone and with the sidecar, then without pause."""
        return (self.alone, self.ours, self.alone_rushed, self.ours_rushed)

    @property
    def every_run(self) -> tuple[Run, ...]:
        """All runs that were played."""
        inside = self.inside
        plugged = (inside.paced, inside.alone, inside.lru_tier, inside.ours) if inside else ()
        return (self.alone, self.ours, self.stock_rushed, self.flags_rushed, self.ours_rushed, *plugged)

    @property
    def hit_seconds(self) -> float | None:
        """Engine seconds per call where every prompt was cached, the median of the steps that were so; None where none
        was."""
        found = [
            seconds / calls
            for run in (self.ours, *([self.inside.paced, self.inside.ours] if self.inside else []))
            for seconds, calls in _hit_steps(run)
        ]
        return median(found) if found else None

    @property
    def differing(self) -> tuple[int, int, int]:
        """Answers whose text differs, and of how many, all in the steps that every run played: with the sidecar from
        the engine alone under the same flags, and between the engine alone under one set of flags and the other."""
        compared = min(len(self.flags_rushed.answers), len(self.ours.answers))
        return (
            differing(self.flags_rushed, self.ours),
            differing(self.flags_rushed, self.stock_rushed),
            compared,
        )


def figures(run: Run) -> Figures:
    """Return a run's figures."""
    answered = [answer for answer in run.answers if answer.error is None]
    ttfts = [answer.ttft for answer in answered] or [0.0]
    return Figures(
        steps=len(run.ends),
        requests=len(run.answers),
        failed=len(run.answers) - len(answered),
        pace=run.pace,
        makespan=run.makespan,
        ttft_mean=fmean(ttfts),
        ttft_p95=quantiles(ttfts, n=20, method="inclusive")[-1] if len(ttfts) > 1 else ttfts[0],
        cached_share=sum(a.cached for a in answered) / max(1, sum(a.prompt_tokens for a in answered)),
    )


def _hit_steps(run: Run) -> Iterator[tuple[float, int]]:
    """Yield the engine seconds and the calls of each step whose prompts all came from the cache."""
    for step, (begun, end) in enumerate(pairwise((0.0, *run.ends)), start=1):
        calls = [answer for answer in run.answers if answer.step == step]
        if calls and all(answer.error is None and answer.cached >= PREFIX_TOKENS for answer in calls):
            yield end - begun - run.pace, len(calls)


def differing(one: Run, other: Run) -> int:
    """Count the requests that both runs answered, with different texts."""
    return sum(
        a.output != b.output
        for a, b in zip(one.answers, other.answers, strict=False)
        if a.error is None and b.error is None
    )


def wasted_share(report: dict[str, Any]) -> float:
    """Return the share of the tokens computed by prefetches that no call used: lost before it came, or still waiting
    for it at the end."""
    tokens: int = report["prefetched_tokens"]
    unused = report["prefetched_tokens_wasted"] + report["prefetched_tokens_pending"]
    return float(unused / tokens) if tokens else 0.0


def ceiling(result: Result, run: Run) -> float | None:
    """Return the makespan that `run` would have with everything cached; None where no step shows what that takes."""
    seconds = result.hit_seconds
    return None if seconds is None else len(run.ends) * run.pace + len(run.answers) * seconds


def summary(result: Result) -> dict[str, Any]:
    """Return what the demo's last line says. Ratios are alone divided by ours: larger is better."""
    alone, ours = figures(result.alone), figures(result.ours)
    return {
        "makespan_ratio": _ratio(alone.makespan, ours.makespan),
        "ttft_mean_ratio": _ratio(alone.ttft_mean, ours.ttft_mean),
        "cached_share_alone": round(alone.cached_share, 4),
        "cached_share_sidecar": round(ours.cached_share, 4),
        "prefetch_wasted_share": round(wasted_share(result.report), 4),
        "failed_requests": sum(figures(run).failed for run in result.every_run),
        "order_accuracy": result.report["order_accuracy"],
        "engine": result.engine,
        **({} if result.trace is None else {"trace": result.trace}),
        **({} if result.inside is None else _inside_summary(result.inside, alone)),
    }


def _inside_summary(inside: InsideResult, alone: Figures) -> dict[str, Any]:
    paced = figures(inside.paced)
    rushed, lru_tier, ours = map(figures, inside.counted)
    return {
        "plugin_makespan_ratio": _ratio(alone.makespan, paced.makespan),
        "plugin_ttft_mean_ratio": _ratio(alone.ttft_mean, paced.ttft_mean),
        "plugin_cached_share": round(paced.cached_share, 4),
        "pace_0_lru_tier_makespan_ratio": _ratio(rushed.makespan, lru_tier.makespan),
        "pace_0_plugin_makespan_ratio": _ratio(rushed.makespan, ours.makespan),
    }


def _ratio(alone: float, ours: float) -> float | None:
    return round(alone / ours, 3) if ours else None
