"""`scalesimd simulate`: the questions, their tables, and what is said of nonsense."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from scalesim_daemon.cli import app
from scalesim_daemon.whatif.ask import FACTORS, FORESIGHTS, VARIANTS, Ask, count

SMALL = ("--agents", "40", "--steps", "8", "--memory", "12000", "--pace", "0.5")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["simulate", *arguments])


def answered(*arguments: str) -> tuple[str, dict[str, Any]]:
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    *tables, last = done.stdout.splitlines()
    return "\n".join(tables), json.loads(last)


def test_the_gain_is_shown_with_what_it_rests_on() -> None:
    tables, told = answered(*SMALL)
    assert "Simulated, not measured" in tables and "H100" in tables
    assert "everything fits" in tables and "12,000 tokens (0.7 GB)" in tables
    assert told["ask"] == "gain" and told["simulated"] is True
    figures = told["points"][0]["figures"]
    assert list(figures) == list(VARIANTS)
    assert told["ideal"]["makespan"] < figures["sidecar and plug-in"]["makespan"]
    assert figures["sidecar and plug-in"]["makespan"] < figures["engine alone"]["makespan"]


def test_equal_commands_give_equal_answers() -> None:
    assert answered(*SMALL, "--error", "0.3") == answered(*SMALL, "--error", "0.3")


def test_more_memory_is_worth_something() -> None:
    tables, told = answered("memory", *SMALL)
    assert [point["value"] for point in told["points"]] == [12000 * factor for factor in FACTORS]
    spans = [point["figures"]["engine alone"]["makespan"] for point in told["points"]]
    assert spans == sorted(spans, reverse=True) and spans[0] > 1.2 * spans[-1]
    assert "sidecar and plug-in, 12,000 tokens: to be as fast the engine alone needs about" in tables


def test_memory_that_holds_no_call_is_left_out() -> None:
    _, told = answered("memory", *SMALL, "--memory", "1200")
    assert [point["value"] for point in told["points"]] == [1200 * factor for factor in FACTORS[1:]]


def test_worse_foresight_foretells_less() -> None:
    tables, told = answered("foresight", *SMALL)
    assert len(told["points"]) == len(FORESIGHTS)
    orders = [point["figures"]["with sidecar"]["order"] for point in told["points"]]
    assert orders[0] > max(orders[1:]) and min(orders) > 0.4
    assert "off by up to 50%" in tables and "100% tell nothing" in tables


def test_more_agents_fit_with_the_sidecar() -> None:
    tables, told = answered("agents", *SMALL, "--steps", "4")
    fits = told["fits"]
    assert fits["engine alone"] < fits["sidecar and plug-in"]
    assert f"sidecar and plug-in: {fits['sidecar and plug-in']} agents fit" in tables


def test_where_not_even_a_few_agents_fit_none_do() -> None:
    _, told = answered("agents", *SMALL, "--steps", "4", "--memory", "1200", "--slowdown", "1")
    assert told["fits"]["engine alone"] == 0


def test_a_trace_is_played(tmp_path: Path) -> None:
    trace = tmp_path / "t.csv"
    lines = [f"{step},a{(step * 7 + number) % 20}" for step in range(12) for number in range(4)]
    trace.write_text("\n".join(["step,agent", *lines]))
    tables, told = answered("--trace", str(trace), "--memory", "6000")
    assert told["workload"]["trace"] == str(trace)
    assert told["points"][0]["figures"]["engine alone"]["calls"] == 48
    assert f"trace {trace}" in tables
    assert run("agents", "--trace", str(trace)).exit_code == 2


@pytest.mark.parametrize("ask", [Ask.GAIN, Ask.FORESIGHT])
def test_a_plot_is_drawn(ask: Ask, tmp_path: Path) -> None:
    plot = tmp_path / "new" / "plot.png"
    answered(ask, *SMALL, "--plot", str(plot))
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--active", "0"), "the share of active agents"),
        (("--active", "1.5"), "the share of active agents"),
        (("--agents", "0"), "at least one agent"),
        (("--pace", "-1"), "the pace is a number of seconds"),
        (("--pace", "nan"), "the pace is a number of seconds"),
        (("--error", "-0.1"), "the error is at least 0"),
        (("--misled", "2"), "the misled share between 0 and 1"),
        (("--fresh", "0"), "at least 1"),
        (("--concurrency", "0"), "at least one call"),
        (("--memory", "500"), "a call needs"),
        (("--costs", "none.yaml"), "presets are"),
        (("--trace", "none.csv"), "none.csv"),
        ((*SMALL, "--plot", "/dev/null/plot.png"), "/dev/null/plot.png"),
    ],
)
def test_nonsense_is_explained(arguments: tuple[str, ...], said: str) -> None:
    done = run(*arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith("scalesimd: ") and said in done.stderr
    assert "Traceback" not in done.output and done.stdout == ""


def test_help_tells_of_every_option() -> None:
    done = CliRunner().invoke(app, ["simulate", "--help"], env={"COLUMNS": "200"})
    for word in (
        "gain",
        "memory",
        "agents",
        "foresight",
        "--trace",
        "--costs",
        "--plot",
        "--slowdown",
        "--misled",
    ):
        assert word in done.stdout


def test_how_long_a_sweep_is_is_known_where_it_can_be() -> None:
    assert count(Ask.GAIN) == 3 and count(Ask.MEMORY) == 18 and count(Ask.AGENTS) is None
