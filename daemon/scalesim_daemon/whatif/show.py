"""How answers are shown: tables, one JSON object, and a plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from scalesim_daemon.whatif.ask import VARIANTS, Answer, Ask, Point, Scene, describe, enough_alone
from scalesim_daemon.whatif.run import Figures

IDEAL = "everything fits"
FIRST = next(iter(VARIANTS))


class PlotError(Exception):
    """No plot can be drawn; the message is for people."""


def as_tables(answer: Answer, scene: Scene) -> RenderableType:
    """Return an answer for people."""
    return Group(*_head(answer.ask, scene), *_body(answer), *_conclusion(answer, scene))


def as_json(answer: Answer, scene: Scene) -> dict[str, Any]:
    """Return an answer, with what was simulated, as plain data."""
    drawn = asdict(scene.drawn)
    return {
        "ask": answer.ask,
        "simulated": True,
        "costs": scene.costs.name,
        "device_tokens": scene.device_tokens,
        "host_tokens": scene.host_tokens,
        "workload": drawn if scene.trace is None else {"trace": str(scene.trace), "prompt": drawn["prompt"]},
        "foresight": asdict(scene.foresight),
        "ideal": asdict(answer.ideal),
        "points": [
            {
                "label": point.label,
                "value": point.value,
                "figures": {name: asdict(figures) for name, figures in point.figures.items()},
            }
            for point in answer.points
        ],
        "fits": None if answer.fits is None else dict(answer.fits),
    }


def draw(answer: Answer, path: Path) -> None:
    """Draw the makespan of each variant over the sweep as a PNG. Raises `PlotError`."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise PlotError("--plot needs matplotlib: pip install matplotlib") from None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    if answer.ask is Ask.GAIN:
        bars = {**answer.points[0].figures, IDEAL: answer.ideal}
        axes.bar(list(bars), [figures.makespan for figures in bars.values()])
    else:
        for name in VARIANTS:
            axes.plot(
                [point.value for point in answer.points],
                [point.figures[name].makespan for point in answer.points],
                marker="o",
                label=name,
            )
        axes.set_xlabel(answer.axis)
        axes.legend()
    if answer.ask is Ask.FORESIGHT:
        axes.set_xticks(
            [point.value for point in answer.points],
            [point.label.replace(", ", "\n") for point in answer.points],
            fontsize=8,
        )
    axes.set_ylabel("makespan, simulated seconds")
    axes.set_ylim(bottom=0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise PlotError(f"{path}: {error}") from None


def _head(ask: Ask, scene: Scene) -> list[RenderableType]:
    drawn, prompt, costs = scene.drawn, scene.drawn.prompt, scene.costs
    who = f"trace {scene.trace}" if scene.trace is not None else _drawn(ask, scene)
    host = f", {_tokens(scene, scene.host_tokens)} in host memory" if scene.host_tokens else ""
    return [
        _line(f"Simulated, not measured: {costs.name}", "bold"),
        _line(costs.source, "dim"),
        _line(
            f"{who}; {drawn.pace:g} s per step of its own; prompts of {prompt.tokens} tokens "
            f"({prompt.shared} shared, {prompt.private} private, {prompt.fresh} new), answers of {prompt.output}"
        ),
        _line(
            f"memory for {_tokens(scene, scene.device_tokens)} on the device{host}"
            + ("" if ask is Ask.FORESIGHT else f"; announcements: {describe(scene.foresight)}")
        ),
    ]


def _drawn(ask: Ask, scene: Scene) -> str:
    drawn = scene.drawn
    who = "" if ask is Ask.AGENTS else f"{drawn.agents:,} agents, "
    return (
        f"{who}{drawn.active:.0%} call in each of {drawn.steps} steps, {drawn.gaps} gaps, seed {drawn.seed}"
    )


def _tokens(scene: Scene, tokens: int) -> str:
    each = scene.costs.kv_bytes_per_token
    return f"{tokens:,} tokens" + ("" if each is None else f" ({tokens * each / 1e9:.1f} GB)")


def _body(answer: Answer) -> list[RenderableType]:
    if answer.ask is Ask.GAIN:
        return [_gain(answer)]
    head = [answer.axis]
    for name in VARIANTS:
        head += [f"{name}: s", "cached"]
    return [_table([*head, "order foretold"], [_row(point) for point in answer.points])]


def _gain(answer: Answer) -> Table:
    (point,) = answer.points
    first = point.figures[FIRST].makespan
    head = (
        "",
        "makespan s",
        "faster",
        "TTFT mean s",
        "95 %",
        "cached",
        "recomputed",
        "from host",
        "prefetches used",
    )
    rows = [
        (
            name,
            f"{figures.makespan:.1f}",
            f"{first / figures.makespan:.2f}x",
            f"{figures.ttft_mean:.3f}",
            f"{figures.ttft_p95:.3f}",
            f"{figures.cached:.1%}",
            f"{figures.recomputed:,}",
            f"{figures.loaded:,}",
            _used(figures),
        )
        for name, figures in [*point.figures.items(), (IDEAL, answer.ideal)]
    ]
    return _table(head, rows)


def _row(point: Point) -> list[str]:
    first = point.figures[FIRST].makespan
    cells = [point.label]
    for figures in point.figures.values():
        cells += [f"{figures.makespan:.1f} ({first / figures.makespan:.2f}x)", f"{figures.cached:.0%}"]
    orders = [figures.order for figures in point.figures.values() if figures.order is not None]
    return [*cells, f"{orders[0]:.0%}" if orders else "-"]


def _used(figures: Figures) -> str:
    if not figures.prefetches:
        return "-"
    return f"{figures.prefetches_used} of {figures.prefetches_used + figures.prefetches_wasted}"


def _conclusion(answer: Answer, scene: Scene) -> list[RenderableType]:
    if answer.fits is not None:
        return [_line(f"{name}: {agents:,} agents fit", "bold") for name, agents in answer.fits.items()]
    ideal = [_line(f"with everything in memory: {answer.ideal.makespan:.1f} s")] if answer.points[1:] else []
    if answer.ask is not Ask.MEMORY:
        return [*ideal]
    given = next(point for point in answer.points if point.value == scene.device_tokens)
    return [*ideal, *(_worth(answer, name, given) for name in list(VARIANTS)[1:])]


def _worth(answer: Answer, variant: str, point: Point) -> Text:
    """Say how much memory the engine alone would need to be as fast as the variant at a point."""
    enough = enough_alone(answer, variant, point)
    what = "more than this table has" if math.isinf(enough) else f"about {enough:,.0f}"
    return _line(f"{variant}, {point.label}: to be as fast the engine alone needs {what}", "bold")


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, title in enumerate(head):
        table.add_column(title, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    return table
