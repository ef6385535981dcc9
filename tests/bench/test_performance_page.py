"""The figures in docs/performance.md are those that were committed, and say what was met."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.daemon.figures import PARTS, TARGETS
from bench.results.performance import FIGURES, MARKS, PERFORMANCE, WHAT, filled
from bench.results.tables import NOT_RUN

ROOT = Path(__file__).parents[2]
PAGE = "before\n{}\nold\n{}\nafter\n".format(*MARKS)
FOUND = {
    "conditions": {"rounds": 5, "cores": 2},
    "figures": {"ingest_1_fraction": 0.4, "start_over_bare": 2.5, "urgent_p99_over_bare_ms": None},
    "beside": {"bare loop, us per event, 1 a message": 4.5},
}


def test_every_figure_has_its_words_and_its_part() -> None:
    assert WHAT.keys() == TARGETS.keys()
    assert {part for _, part in WHAT.values()} == PARTS.keys()


def test_figures_stand_between_the_marks_with_their_verdicts() -> None:
    page = filled(PAGE, FOUND)
    assert page.startswith("before\n") and page.endswith("\nafter\n") and "old" not in page
    assert ">= 0.5 | 0.4 | **missed** | ingest |" in page
    assert "<= 3 | 2.5 | met | start |" in page
    assert page.count(NOT_RUN) == len(TARGETS) - 2
    assert "rounds 5, cores 2" in page and "4.5 |" in page
    assert filled(page, FOUND) == page


def test_without_a_run_the_page_says_so() -> None:
    page = filled(PAGE, None)
    assert page.count(NOT_RUN) == len(TARGETS) and "make bench-daemon" in page


def test_the_committed_page_has_the_committed_figures() -> None:
    page = (ROOT / PERFORMANCE).read_text(encoding="utf-8")
    found = json.loads((ROOT / FIGURES).read_text()) if (ROOT / FIGURES).exists() else None
    assert filled(page, found) == page


def test_a_page_without_the_marks_is_left_as_it_is() -> None:
    for page in ("before\nafter\n", f"before\n{MARKS[0]}\nold"):
        with pytest.raises(ValueError, match="has no part between"):
            filled(page, None)
