"""The figures of `make bench-daemon` in docs/performance.md, between two marks. Pure; the rest is written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.daemon.figures import TARGETS
from bench.results.pages import with_part
from bench.results.tables import NOT_RUN, table

PERFORMANCE = Path("docs/performance.md")
FIGURES = Path("docs/results/daemon.json")
MARKS = ("<!-- figures: written by `make results` -->", "<!-- end of figures -->")

WHAT = {
    "ingest_1_fraction": ("events a second of a bare loop's, one a message", "ingest"),
    "ingest_100_fraction": ("the same, 100 a message", "ingest"),
    "select_over_argpartition": (
        "choosing among 100,000 agents after 1,000 changes, in argpartitions",
        "choose",
    ),
    "cycle_over_argpartition": ("the whole cycle, in argpartitions", "choose"),
    "event_cost_growth_1k_to_1m": ("an event among 1,000,000 agents over one among 1,000", "growth"),
    "bytes_per_idle_agent": ("bytes of memory per idle agent", "idle"),
    "urgent_p99_over_bare_ms": ("urgent event to first engine call, p99 over a bare loop's, ms", "urgent"),
    "start_over_bare": ("start with 100,000 agents over a bare read of their keys", "start"),
}
"""Each figure in words, and the part of the bench that gives it."""


def filled(page: str, found: Mapping[str, Any] | None) -> str:
    """Return the page with the figures that were `found`, as `python -m bench.daemon --out` writes them."""
    return with_part(page, MARKS, _figures(found))


def _figures(found: Mapping[str, Any] | None) -> str:
    figures = {} if found is None else found["figures"]
    rows = [_row(key, figures.get(key)) for key in TARGETS]
    blocks = [table(("figure", "what", "target", "found", "", "`python -m bench.daemon --parts`"), rows)]
    if found is None:
        blocks.append("No whole run yet: `make bench-daemon`.")
    else:
        conditions = ", ".join(f"{name} {value}" for name, value in found["conditions"].items())
        blocks.append(f"Written by `make bench-daemon`; conditions: {conditions}. Beside them it found:")
        blocks.append(
            table(("what", "median"), [(key, f"{one:,.4g}") for key, one in found["beside"].items()])
        )
    return "\n\n".join(blocks)


def _row(key: str, value: float | None) -> tuple[str, ...]:
    target, (what, part) = TARGETS[key], WHAT[key]
    if value is None:
        return f"`{key}`", what, str(target), NOT_RUN, "", part
    return f"`{key}`", what, str(target), f"{value:,.3g}", "met" if target.met(value) else "**missed**", part
