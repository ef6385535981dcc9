"""The plot of docs/scale.md: how each resource fills while engines and agents become more. As SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.scale.costs import Costs, short
from bench.scale.model import Fleet, Use, first_limit, uses
from bench.scale.steps import SHARDS, in_buckets, in_cells, together

# Equal figures give equal files, whose words can be read.
matplotlib.rcParams |= {"svg.hashsalt": "scale", "svg.fonttype": "none"}
AGENTS = tuple(round(10 ** (4 + place / 10)) for place in range(41))
PANELS: Sequence[tuple[str, Callable[[int], Fleet]]] = (
    ("one fleet with one Redis", together),
    ("cells of ten engines, a Redis each", in_cells),
    (f"one fleet in buckets, {SHARDS} shards (not built)", in_buckets),
)


def draw(costs: Costs, path: Path) -> None:
    """Write the plot. Raises `OSError`."""
    figure = Figure(figsize=(14, 4.2), layout="constrained")
    for number, (title, fleet_of) in enumerate(PANELS, start=1):
        axes = figure.add_subplot(1, len(PANELS), number)
        _panel(axes, [uses(fleet_of(agents), costs) for agents in AGENTS])
        axes.set_title(title, fontsize=9)
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8)
    figure.savefig(path, metadata={"Date": None})


def _panel(axes: Axes, found: Sequence[tuple[Use, ...]]) -> None:
    for number, use in enumerate(found[0]):
        axes.plot(AGENTS, [one[number].share for one in found], label=use.name)
    axes.axhline(1.0, color="black", linestyle="--", linewidth=0.8)
    full = next(
        ((agents, one) for agents, one in zip(AGENTS, found, strict=True) if first_limit(one).share > 1), None
    )
    if full is None:
        axes.text(0.03, 0.9, "nothing is full", transform=axes.transAxes, fontsize=8)
    else:
        agents, one = full
        said = f"{first_limit(one).name}\nis full below {short(agents)} agents"
        how = {"textcoords": "axes fraction", "fontsize": 8, "arrowprops": {"arrowstyle": "->"}}
        axes.annotate(said, (agents, 1), (0.03, 0.86), **how)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_ylim(1e-4, 300)
    axes.set_xlabel("agents, 10,000 on each engine")
    axes.set_ylabel("utilisation of the busiest")
    axes.grid(alpha=0.3)
