"""Unit costs are measured on a real Valkey, and what follows from them is written and told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.scale import __main__, sharing, store_units
from bench.scale.costs import FILE, costs_of, medians, read, short
from bench.scale.page import DAEMON, MARKED, MEMORY, PAGE, UNITS, renewed
from bench.scale.plot import draw

ROOT = Path(__file__).parents[2]


def test_a_round_measures_every_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {
        "AGENTS": 4_000,
        "SIMULATIONS": 20,
        "CHANGED": 600,
        "LEASES": 8,
        "ALONE": 8,
        "TICKS": 1,
        "CROWD": 4,
    }
    for name, number in few.items():
        monkeypatch.setattr(store_units, name, number)
    monkeypatch.setattr(sharing, "AT_ONCE", 4)
    (found,) = store_units.store_units(1, 1)
    assert {f"{name}.server_us" for name in UNITS} <= found.keys()
    assert {f"memory.{name}" for name in MEMORY} <= found.keys()
    # Commands are counted, and the same on any machine: two ZREM, ZADD, HSET and EXPIRE of a due; in a message of its
    # own three EXPIRE and the script come on top.
    assert found["bare.operations"] == 1
    assert found["due.operations"] == pytest.approx(5, abs=0.05)
    assert found["due_alone.operations"] == pytest.approx(9, abs=0.5)
    assert 200 < found["memory.agent"] < 500


def test_a_fleet_of_ones_own_numbers_is_calculated(capsys: pytest.CaptureFixture[str]) -> None:
    told = []
    for cells in (1, 100):
        flags = f"--engines 1000 --agents 10000000 --watched 10 --doors 1000 --simulations {cells} --cells {cells}"
        __main__.main([*flags.split(), "--costs", str(ROOT / FILE)])
        told.append(json.loads(capsys.readouterr().out))
    hot, divided = told
    assert hot["fleet"]["engines"] == 1000
    assert hot["first_limit"] == "Redis, CPU" and hot["used"]["Redis, CPU"] > 1
    assert divided["used"]["Redis, CPU"] < hot["used"]["Redis, CPU"] / 100
    assert divided["agents_at_the_limit"] > hot["agents_at_the_limit"]


def test_the_committed_page_has_the_committed_figures() -> None:
    page, figures = (ROOT / PAGE).read_text(encoding="utf-8"), read(ROOT / FILE)
    assert renewed(page, figures) == page, "run `make results`"
    assert len(MARKED.findall(page)) == page.count("<!-- figures: ") == page.count("<!-- end of figures -->")
    assert DAEMON.keys() <= figures.figures.keys()


def test_a_plot_shows_each_resource(tmp_path: Path) -> None:
    draw(costs_of(medians(read(ROOT / FILE))), tmp_path / "scale.svg")
    plot = (tmp_path / "scale.svg").read_text(encoding="utf-8")
    assert "Redis, CPU" in plot and "is full below" in plot


@pytest.mark.parametrize(
    ("number", "shown"), [(0.012345, "0.0123"), (16.26, "16.3"), (123.4, "123"), (1234567.0, "1,230,000")]
)
def test_figures_have_three_digits(number: float, shown: str) -> None:
    assert short(number) == shown
