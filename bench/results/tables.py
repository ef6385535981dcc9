"""Figures as tables of Markdown. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from bench.engine.variants import FULL
from bench.results.files import Classes, Row

NOT_RUN = "not run"
COLUMNS = (
    ("makespan", "makespan_ratio", ".2f"),
    ("over shuffled", "over_shuffled", ".2f"),
    ("TTFT mean", "ttft_mean_ratio", ".2f"),
    ("TTFT p95", "ttft_p95_ratio", ".2f"),
    ("TTFT over host_lru", "ttft_over_host_lru", ".2f"),
    ("cached share", "cached_share", ".3f"),
    ("recomputed", "recomputed_tokens_ratio", ".3f"),
    ("prefetched tokens", "prefetched_tokens", ",d"),
    ("prefetch precision", "prefetch_precision", ".2f"),
    ("prefetch waste", "prefetch_waste", ".2f"),
    ("order accuracy", "order_accuracy", ".2f"),
    ("recency accuracy", "recency_accuracy", ".2f"),
    ("daemon CPU, s", "daemon_cpu_seconds", ".1f"),
    ("failed", "failed_requests", "d"),
    ("unannounced requests", "unannounced", "d"),
    ("their TTFT mean", "unannounced_ttft_mean_ratio", ".2f"),
    ("of them failed", "unannounced_failed", "d"),
)
# Seconds and tokens that are shown as ratios: they are in the files.
ABSOLUTE = ("calls", "makespan", "ttft_mean", "ttft_p95", "recomputed_tokens", "unannounced_ttft_mean")


def classes_tables(classes: Classes, command: str) -> Iterator[str]:
    """Yield a table of each class, with a row for every variant that can be run."""
    for name, variants in classes.items():
        yield f"### {name}"
        names = dict.fromkeys((*FULL, *variants))
        columns = [
            column for column in COLUMNS if any(row.get(column[1]) is not None for row in variants.values())
        ]
        rows = [(variant, *_cells(variants.get(variant), columns)) for variant in names]
        yield table(("variant", *(title for title, _, _ in columns)), rows)
        yield commands([command])


def _cells(row: Row | None, columns: Iterable[tuple[str, str, str]]) -> Iterator[str]:
    for _, key, form in columns:
        if row is None:
            yield NOT_RUN
            continue
        number, low = row.get(key), row.get(f"{key}_low")
        shown = "" if number is None else format(number, form)
        yield shown if low is None else f"{shown} ({low:.2f} to {row[f'{key}_high']:.2f})"


def commands(written_by: Sequence[str]) -> str:
    """Return the line that says where figures are from."""
    return f"Written by {' and '.join(f'`{command}`' for command in written_by)}."


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of Markdown."""
    head = tuple(head)
    lines = [head, tuple("---" for _ in head), *(tuple(row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
