"""From played runs to figures: what the sidecar changed."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, quantiles
from typing import Any

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
class Result:
    """The whole demo: the pair at the pace, the runs without pause, and what the daemon said of the first.

    The engine alone ran without pause under both sets of flags; `stock_is_better` tells under which of them it also
    ran at the pace. `report` is the daemon's `/v1/report`.
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


def summary(result: Result) -> dict[str, Any]:
    """Return what the demo's last line says. Ratios are alone divided by ours: larger is better."""
    alone, ours = figures(result.alone), figures(result.ours)
    return {
        "makespan_ratio": _ratio(alone.makespan, ours.makespan),
        "ttft_mean_ratio": _ratio(alone.ttft_mean, ours.ttft_mean),
        "cached_share_alone": round(alone.cached_share, 4),
        "cached_share_sidecar": round(ours.cached_share, 4),
        "prefetch_wasted_share": round(wasted_share(result.report), 4),
        "failed_requests": sum(figures(run).failed for run in result.runs),
        "order_accuracy": result.report["order_accuracy"],
        "engine": result.engine,
    }


def _ratio(alone: float, ours: float) -> float | None:
    return round(alone / ours, 3) if ours else None
