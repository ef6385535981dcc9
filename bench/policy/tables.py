"""The figures as tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bench.policy.misses import REFERENCES

OURS = "by due"


def equal_table(rows: Iterable[Mapping[str, Any]]) -> Group:
    """Show misses of items of equal size."""
    head = ("trace", "agents", "cache", "calls", *REFERENCES, OURS, "over Belady")
    cells = (
        (
            row["trace"],
            *(str(row[key]) for key in ("agents", "capacity", "calls")),
            *map(str, row["misses"].values()),
            f"{row['over_belady']:+.2%}",
        )
        for row in rows
    )
    return _titled("misses; items of equal size, due told exactly, in steps", head, cells)


def mixed_table(rows: Sequence[Mapping[str, Any]]) -> Group:
    """Show what misses cost where sizes differ."""
    head = ("trace", "items", "cache", *rows[0]["seconds"], "over the better GDSF")
    cells = (
        (
            row["trace"],
            row["items"],
            f"{row['share']:.0%}",
            *(f"{lost:.1f}" for lost in row["seconds"].values()),
            f"{row['over_gdsf']:+.1%}",
        )
        for row in rows
    )
    return _titled("seconds that misses cost; items of drawn sizes (bench/policy/items.py)", head, cells)


def class_table(machine: str, name: str, active: float, rows: Mapping[str, Mapping[str, Any]]) -> Group:
    """Show the variants of one class on one simulated engine."""
    numbers = (
        ("TTFT", "ttft_mean_ratio", ".2f"),
        ("TTFT p95", "ttft_p95_ratio", ".2f"),
        ("cached", "cached_share", ".2f"),
        ("recomputed", "recomputed_tokens_ratio", ".3f"),
        ("order", "order_accuracy", ".2f"),
        ("precision", "prefetch_precision", ".2f"),
        ("waste", "prefetch_waste", ".2f"),
    )
    cells = (
        (
            variant,
            f"{row['makespan_ratio']:.2f}",
            f"{row['makespan_ratio_low']:.2f}-{row['makespan_ratio_high']:.2f}",
            *("" if row[key] is None else format(row[key], form) for _, key, form in numbers),
        )
        for variant, row in rows.items()
    )
    title = (
        f"simulated, {machine}: {name}, {active:.0%} call in a step; times as ratios, alone over the variant"
    )
    return _titled(title, ("variant", "makespan", "90 %", *(head for head, _, _ in numbers)), cells)


def sweep_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Group:
    """Show makespans along a sweep."""
    cells = (
        (
            f"{row['agents']:,}",
            f"{row['active']:.0%}",
            *(f"{found['makespan_ratio']:.2f}" for found in row["variants"].values()),
        )
        for row in rows
    )
    head = ("agents", "active", *rows[0]["variants"])
    return _titled(f"simulated, h100, independent: {title}; makespan, alone over the variant", head, cells)


def _titled(title: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> Group:
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(head):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return Group(Text(title, "bold"), table, "")
