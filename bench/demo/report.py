"""The demo's result for people and programs: a table, a plot, and one JSON line."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

from bench.demo.inside import TIER_SHARE
from bench.demo.loras import AGENTS, HOST_PLACES, SLOTS, LoraResult
from bench.demo.measure import Figures, InsideResult, Result, ceiling, figures, summary
from bench.demo.runner import Run

mpl.use("Agg")
from matplotlib import pyplot as plt

EMULATED = "[emulated engine] "


def print_result(result: Result, loras: LoraResult, plot: Path) -> None:
    """Print tables, notes and the JSON line to standard output; of an emulated engine every line says so."""
    prefix = EMULATED if result.engine.startswith("emulator") else ""
    inside = [] if result.inside is None else _inside_lines(result, result.inside)
    lines = [*_table(result).splitlines(), *_notes(result), *inside, *_lora_notes(loras), f"plot: {plot}"]
    for line in lines:
        sys.stdout.write(f"{prefix}{line}\n")
    sys.stdout.write(json.dumps(summary(result)) + "\n")
    sys.stdout.flush()


def _table(result: Result) -> str:
    alone, ours, alone_rushed, ours_rushed = (figures(run) for run in result.runs)
    columns = (alone, ours, alone_rushed, ours_rushed)
    table = Table(title=f"{result.workload} on {result.engine}")
    table.add_column("")
    for name, pace in (
        ("alone", alone.pace),
        ("with sidecar", ours.pace),
        ("alone", 0.0),
        ("with sidecar", 0.0),
    ):
        table.add_column(f"{name}\npace {pace:.2f} s", justify="right")
    _add_figures(table, columns)
    table.add_row("makespan with everything cached", *(_seconds(ceiling(result, run)) for run in result.runs))
    ledger = result.report
    for name, key in (
        ("prefetches", "prefetches"),
        ("… used", "prefetches_used"),
        ("… wasted", "prefetches_wasted"),
        ("… not used by the end", "prefetches_pending"),
        ("prefetched tokens computed", "prefetched_tokens"),
        ("… lost before their call", "prefetched_tokens_wasted"),
        ("… waiting at the end", "prefetched_tokens_pending"),
        ("refreshed", "touches"),
        ("cancelled for a call", "cancelled"),
    ):
        table.add_row(name, "", f"{ledger[key]}", "", "")
    return _text(table)


def _add_figures(table: Table, columns: Sequence[Figures]) -> None:
    rows = {
        "steps": [f"{c.steps}" for c in columns],
        "requests": [f"{c.requests}" for c in columns],
        "failed requests": [f"{c.failed}" for c in columns],
        "makespan": [f"{c.makespan:.1f} s" for c in columns],
        "mean TTFT": [f"{c.ttft_mean * 1000:.0f} ms" for c in columns],
        "p95 TTFT": [f"{c.ttft_p95 * 1000:.0f} ms" for c in columns],
        "prompt tokens from cache": [f"{c.cached_share:.1%}" for c in columns],
    }
    for name, cells in rows.items():
        table.add_row(name, *cells)


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"


def _text(table: Table) -> str:
    text = io.StringIO()
    Console(file=text, width=120, color_system=None).print(table)
    return text.getvalue()


def _inside_lines(result: Result, inside: InsideResult) -> list[str]:
    table = Table(title=f"with our plug-in and a host tier for {TIER_SHARE:.0%} of the agents")
    table.add_column("")
    paced, rushed = f"pace {inside.paced.pace:.2f} s", f"pace 0, from step {inside.warm_up + 1}"
    titles = (f"plug-in\n{paced}", f"alone\n{rushed}", f"LRU tier\n{rushed}", f"plug-in\n{rushed}")
    runs = (inside.paced, *inside.counted)
    for title in titles:
        table.add_column(title, justify="right")
    _add_figures(table, [figures(run) for run in runs])
    table.add_row("makespan with everything cached", *(_seconds(ceiling(result, run)) for run in runs))
    said = summary(result)
    return [
        *_text(table).splitlines(),
        f"With the plug-in, alone / ours: makespan {said['plugin_makespan_ratio']}, "
        f"mean TTFT {said['plugin_ttft_mean_ratio']} at the pace; makespan {said['pace_0_plugin_makespan_ratio']} "
        f"at pace 0, where vLLM's own LRU tier of equal bytes reaches {said['pace_0_lru_tier_makespan_ratio']}.",
        "What everything cached would take is reckoned from the steps in which everything was.",
    ]


def _notes(result: Result) -> list[str]:
    said = summary(result)
    rushed = figures(result.alone_rushed).makespan / figures(result.ours_rushed).makespan
    with_sidecar, alone, compared = result.differing
    accuracy = said["order_accuracy"]
    return [
        f"At the pace, alone / with sidecar: makespan {said['makespan_ratio']}, "
        f"mean TTFT {said['ttft_mean_ratio']}.",
        f"At pace 0: makespan {rushed:.2f}. Without idle time and without a host tier,",
        "an engine's stock endpoints can help little there.",
        f"There the engine alone took {result.stock_rushed.makespan:.1f} s with vLLM's default flags, "
        f"{result.flags_rushed.makespan:.1f} s with ours.",
        f"The engine alone ran with {result.alone_flags} flags, the better of vLLM's defaults and ours here.",
        f"The pace is what the simulation itself takes per step, equal in both runs; a cold prefill takes "
        f"{result.cold_prefill:.2f} s.",
        f"Order accuracy of the estimates: {'none scored' if accuracy is None else f'{accuracy:.1%}'}.",
        f"Answers whose text differs, of {compared}: {with_sidecar} with the sidecar from alone under the same "
        f"flags, {alone} between the engine alone under one set of flags and the other.",
    ]


def _lora_notes(loras: LoraResult) -> list[str]:
    alone, ours = (
        f"{run.in_slot} of {run.calls} calls found their LoRA in a slot, {run.failed} failed, "
        f"{run.latency * 1000:.0f} ms to the first token"
        for run in (loras.alone, loras.ours)
    )
    return [
        f"LoRAs: {AGENTS} agents with one each, {SLOTS} slots, {HOST_PLACES} host places, a tiny model.",
        f"  alone: {alone}",
        f"  with sidecar: {ours}",
    ]


def draw(result: Result, path: Path) -> None:
    """Write the plot: progress over time, TTFT, and cached share per step, for the pair at the pace."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, (progress, ttft, cached) = plt.subplots(1, 3, figsize=(13, 4))
    for name, run, colour in (("alone", result.alone, "tab:gray"), ("with sidecar", result.ours, "tab:blue")):
        progress.plot([0.0, *run.ends], range(len(run.ends) + 1), label=name, color=colour)
        times = sorted(answer.ttft for answer in run.answers if answer.error is None)
        ttft.plot(times, [(i + 1) / len(times) for i in range(len(times))], label=name, color=colour)
        shares = _shares_by_step(run)
        cached.plot(list(shares), list(shares.values()), label=name, color=colour)
    progress.set(xlabel="seconds", ylabel="steps done", title=f"pace {result.alone.pace:.2f} s a step")
    ttft.set(xlabel="TTFT in seconds", ylabel="share of requests", title="time to first token")
    cached.set(xlabel="step", ylabel="share of prompt tokens", title="prompt tokens from cache", ylim=(0, 1))
    for axes in (progress, ttft, cached):
        axes.legend()
    figure.suptitle(f"{result.workload} on {result.engine}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _shares_by_step(run: Run) -> dict[int, float]:
    tokens: dict[int, tuple[int, int]] = {}
    for answer in run.answers:
        cached, total = tokens.get(answer.step, (0, 0))
        tokens[answer.step] = cached + answer.cached, total + answer.prompt_tokens
    return {step: cached / total for step, (cached, total) in tokens.items() if total}
