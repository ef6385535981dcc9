"""Where we are worse: found by rule, so that nothing is left out. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.results.targets import TARGETS, Classes, misses


def worse(source: str, classes: Classes) -> Iterator[str]:
    """Yield a line for each missed target of one source of figures, and for each variant that is worse than the engine
    alone: slower beyond its interval, later to the first token, or computing more again."""
    for target in TARGETS:
        verdict = target.read(classes)
        if verdict.met is False:
            yield f"{source}: {target.what} is {verdict.shown}; the target is {target.target}."
    for name, variants in classes.items():
        for variant, row in variants.items():
            yield from (f"{source}, {name}, {variant}: {what}." for what in _harms(row))


def worse_policies(policy: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each missed target of the policies alone, and for each place of a sweep with an interval wholly
    below 1.0."""
    for what, target, verdict in misses(policy):
        if not verdict.met:
            yield f"simulated: {what} is {verdict.shown}; the target is {target}."
    for rows in policy["sweeps"].values():
        for row in rows:
            for variant, found in row["variants"].items():
                place = f"simulated h100, {row['agents']:,} agents, {row['active']:.0%} active, {variant}"
                yield from (f"{place}: {what}." for what in _harms(found))


def _harms(row: Mapping[str, Any]) -> Iterator[str]:
    def above(key: str, bound: float) -> bool:
        return row.get(key) is not None and row[key] > bound

    high = row.get("makespan_ratio_high")
    if high is not None and high < 1:
        yield f"slower than the engine alone ({row['makespan_ratio']:.2f}, interval wholly below 1.0)"
    for key, what in (("ttft_mean_ratio", "mean"), ("ttft_p95_ratio", "95th percentile of")):
        if row.get(key) is not None and row[key] < 1:
            yield f"the {what} TTFT is above the engine alone's (ratio {row[key]:.2f})"
    if above("recomputed_tokens_ratio", 1):
        yield f"more is computed again ({row['recomputed_tokens_ratio']:.3f} of the engine alone's)"
    if above("failed_requests", 0):
        yield f"{row['failed_requests']} requests failed"
