"""The result for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.table import Table

from bench.engine.result import Numbers, Result
from bench.engine.variants import ALONE, BOTH, CEILING, SHUFFLED


def print_result(result: Result, console: Console) -> None:
    """Print a table of each class and its headline."""
    said = result.conditions
    console.print(
        f"{said.engine}, model {said.model}, {said.agents} agents, the device holds {said.pool_share:.0%} of their "
        f"prompts and a host tier {said.tier_share:.0%}; {said.steps} steps without pause, {said.warmup} of them "
        f"uncounted, {said.repetitions} times, on {said.cores} cores"
    )
    for name, variants in result.classes.items():
        console.print(_table(name, variants))
        console.print(headline(name, variants))


def headline(name: str, variants: Mapping[str, Numbers]) -> str:
    """Return what the sidecar gains in one class, beside what it would gain if all it is told were of other agents, and
    if everything were cached."""
    ours, control = variants[BOTH], variants[SHUFFLED]
    share = f"{ours.over_shuffled:.2f}x ({ours.over_shuffled_low:.2f}-{ours.over_shuffled_high:.2f})"
    text = (
        f"{name}: {_ratio(ours)} with the sidecar, {_ratio(control)} shuffled, prediction's own share {share}"
    )
    return f"{text}, everything cached {_ratio(variants[CEILING])}" if CEILING in variants else text


def _table(name: str, variants: Mapping[str, Numbers]) -> Table:
    table = Table(title=f"{name}, {variants[ALONE].calls} calls")
    for title in (
        "",
        "makespan",
        "alone / it, 90 %",
        "mean TTFT",
        "p95",
        "alone / it",
        "cached",
        "recomputed",
        "/ alone",
        "prefetched",
        "used",
        "wasted",
        "order",
        "daemon CPU",
        "failed",
    ):
        table.add_column(title, justify="right" if title else "left")
    for variant, numbers in variants.items():
        table.add_row(variant, *_cells(numbers))
    return table


def _cells(of: Numbers) -> Iterator[str]:
    yield f"{of.makespan:.1f} s"
    yield f"{of.makespan_ratio:.2f} ({of.makespan_ratio_low:.2f}-{of.makespan_ratio_high:.2f})"
    yield f"{of.ttft_mean * 1000:.0f} ms"
    yield f"{of.ttft_p95 * 1000:.0f} ms"
    yield f"{of.ttft_mean_ratio:.2f}"
    yield f"{of.cached_share:.1%}"
    yield f"{of.recomputed_tokens}"
    yield f"{of.recomputed_tokens_ratio:.3f}"
    yield f"{of.prefetched_tokens}"
    for share in (of.prefetch_precision, of.prefetch_waste, of.order_accuracy):
        yield "" if share is None else f"{share:.0%}"
    yield "" if of.daemon_cpu_seconds is None else f"{of.daemon_cpu_seconds:.1f} s"
    yield f"{of.failed_requests}"


def _ratio(of: Numbers) -> str:
    return f"{of.makespan_ratio:.2f}x ({of.makespan_ratio_low:.2f}-{of.makespan_ratio_high:.2f})"
