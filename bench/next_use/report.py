"""The shares for people and programs: a table, a plot, and one JSON line."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

from bench.next_use.measure import AGENTS, VARIANTS, Class, Shares, Variant
from bench.next_use.recording import Recording
from bench.rig.vllm import VERSION

mpl.use("Agg")
from matplotlib import pyplot as plt

GOAL: Final = 0.95
COLOURS: Final = ("tab:gray", "tab:blue", "tab:green", "black")


def ratio(shares: Shares, name: Class, variant: Variant = "estimated") -> float:
    """Return what a variant's share is of that of the record, 1 for as much."""
    return shares[name, variant].cached / shares[name, "recorded"].cached


def summary(recordings: Mapping[Class, Recording], shares: Mapping[int, Shares], seed: int) -> dict[str, Any]:
    """Return all figures, rounded: shares of the prompt tokens by class, variant and pool, and the ratio of the
    estimates' share to the record's; `missed` names where it is below 0.95."""
    ratios = {name: {pool: round(ratio(of, name), 3) for pool, of in shares.items()} for name in recordings}
    return {
        "engine": f"vLLM {VERSION} (CPU)",
        "agents": AGENTS,
        "seed": seed,
        "calls": {name: len(recording.calls) for name, recording in recordings.items()},
        "shares": {
            name: {
                variant: {pool: round(of[name, variant].cached, 4) for pool, of in shares.items()}
                for variant in VARIANTS
            }
            for name in recordings
        },
        "ratio": ratios,
        "missed": [
            f"{name}, pool for {pool}"
            for name, by in ratios.items()
            for pool, one in by.items()
            if one < GOAL
        ],
    }


def print_result(
    recordings: Mapping[Class, Recording], shares: Mapping[int, Shares], seed: int, plot: Path
) -> None:
    """Print the table and the JSON line to standard output."""
    table = Table(title=f"prompt tokens served from the device, vLLM {VERSION} (CPU), seed {seed}")
    table.add_column("")
    for pool in shares:
        table.add_column(f"pool for {pool}\nof {AGENTS}", justify="right")
    for name, recording in recordings.items():
        table.add_row(f"{name}, {len(recording.calls)} calls")
        for variant in VARIANTS:
            table.add_row(f"  {variant}", *(f"{of[name, variant].cached:.1%}" for of in shares.values()))
        ratios = (f"{ratio(of, name):.3f}" for of in shares.values())
        table.add_row("  estimated / recorded", *ratios, end_section=True)
    Console(file=sys.stdout).print(table)
    print(f"plot: {plot}")
    print(json.dumps(summary(recordings, shares, seed)))


def draw(shares: Mapping[int, Shares], path: Path) -> None:
    """Write the plot: per class the share of each variant by pool."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for of in shares.values() for name, _ in of))
    figure, axes = plt.subplots(1, len(names), figsize=(3.6 * len(names), 4), sharey=True, squeeze=False)
    for name, plot in zip(names, axes[0], strict=True):
        for offset, (variant, colour) in enumerate(zip(VARIANTS, COLOURS, strict=True)):
            places = [place + 0.2 * (offset - 1.5) for place in range(len(shares))]
            heights = [of[name, variant].cached for of in shares.values()]
            plot.bar(places, heights, 0.18, label=variant, color=colour)
        plot.set_xticks(range(len(shares)), [f"{pool} of {AGENTS}" for pool in shares])
        plot.set(title=name, xlabel="agents that the pool holds")
    axes[0][0].set_ylabel("prompt tokens served from the device")
    axes[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
