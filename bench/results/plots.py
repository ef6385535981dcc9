"""The plots of the page, as SVG: makespans of each class and engine, and along the sweeps."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.engine.variants import ALONE, VARIANTS
from bench.results.files import Files, Row
from bench.results.paper import BAR, SECOND_MARK

Sweeps = Mapping[str, list[dict[str, Any]]]

# Equal figures give equal files, whose words can be read.
matplotlib.rcParams |= {"svg.hashsalt": "results", "svg.fonttype": "none"}
BARS = (*(name for name in VARIANTS if name != ALONE), "clairvoyant", "history")


def draw(files: Files, folder: Path) -> None:
    """Write the plots of what there is. Raises `OSError`."""
    folder.mkdir(parents=True, exist_ok=True)
    _makespans(files).savefig(folder / "makespan.svg", metadata={"Date": None})
    if files.policy is not None:
        _sweeps(_with_largest(files.policy["sweeps"], files.scale or {})).savefig(
            folder / "sweeps.svg", metadata={"Date": None}
        )


def _makespans(files: Files) -> Figure:
    found = {title: classes for title, classes in files.sources.items() if classes}
    figure = Figure(figsize=(9, 3.2 * max(1, len(found))), layout="constrained")
    for number, (title, classes) in enumerate(found.items(), start=1):
        axes = figure.add_subplot(len(found), 1, number)
        width = 1 / (len(BARS) + 1)
        for place, variant in enumerate(BARS):
            held = {at: classes[name][variant] for at, name in enumerate(classes) if variant in classes[name]}
            axes.bar(
                [at + (place - len(BARS) / 2 + 0.5) * width for at in held],
                [row["makespan_ratio"] for row in held.values()],
                width,
                yerr=_ends(list(held.values())),
                label=variant,
            )
        axes.set_xticks(range(len(classes)), list(classes))
        _marks(axes, title)
    return figure


def _ends(rows: list[Row]) -> tuple[list[float], list[float]]:
    """Return how far the intervals reach below and above; a median may lie outside of its own."""
    return (
        [max(0.0, row["makespan_ratio"] - row["makespan_ratio_low"]) for row in rows],
        [max(0.0, row["makespan_ratio_high"] - row["makespan_ratio"]) for row in rows],
    )


def _marks(axes: Axes, title: str) -> None:
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.axhline(BAR, color="black", linestyle="--", linewidth=0.8, label=f"the paper's {BAR}")
    axes.axhline(
        SECOND_MARK, color="grey", linestyle=":", linewidth=0.8, label=f"a summary's {SECOND_MARK} (doubtful)"
    )
    axes.set_title(title)
    axes.set_ylabel("makespan, alone / variant")
    axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def _with_largest(sweeps: Sweeps, scale: Sweeps) -> Sweeps:
    return {key: rows + scale.get(key, []) for key, rows in sweeps.items()}


def _sweeps(sweeps: Sweeps) -> Figure:
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for number, (key, rows) in enumerate(sweeps.items(), start=1):
        axes = figure.add_subplot(1, len(sweeps), number)
        for variant in rows[0]["variants"]:
            axes.plot(
                [row[key] for row in rows],
                [row["variants"][variant]["makespan_ratio"] for row in rows],
                marker="o",
                label=variant,
            )
        if key == "agents":
            axes.set_xscale("log")
        axes.set_xlabel({"agents": "agents", "active": "share of agents that call in a step"}.get(key, key))
        axes.set_ylabel("makespan, alone / variant")
        axes.legend(fontsize=7)
    figure.suptitle("simulated, h100, independent", fontsize=10)
    return figure
