from __future__ import annotations

from pathlib import Path

from bench.daemon.flame import draw, laid_out, merged

SEEN = (
    "<module> (run.py:1);run_forever (asyncio/base_events.py:2) 9",
    "<module> (run.py:1);Feed._route (scalesim_daemon/feed.py:3);read_plain (scalesim_daemon/wire.py:4) 1",
    "<module> (run.py:1);Feed._route (scalesim_daemon/feed.py:5);Population.apply (scalesim_daemon/population.py:6) 2",
    "Feed._route (scalesim_daemon/feed.py:3);Population.apply (scalesim_daemon/population.py:7) 3",
    "Sidecar.run (scalesim_daemon/loop.py:8) 4",
)


def test_stacks_are_merged_by_function_and_the_longest_comes_first() -> None:
    tree = merged(SEEN)
    assert tree.samples == 10
    assert [(frame.name, frame.samples, left, depth) for frame, left, depth in laid_out(tree)] == [
        ("Feed._route", 6, 0, 0),
        ("Population.apply", 5, 0, 1),
        ("read_plain", 1, 5, 1),
        ("Sidecar.run", 4, 6, 0),
    ]


def test_the_picture_names_what_is_wide_enough(tmp_path: Path) -> None:
    draw(merged(SEEN), tmp_path / "flame.svg")
    drawn = (tmp_path / "flame.svg").read_text(encoding="utf-8")
    assert all(word in drawn for word in ("Feed._route", "Population.apply", "estimators"))
    draw(merged([*SEEN, "Sidecar.run (scalesim_daemon/loop.py:8) 5000"]), tmp_path / "flame.svg")
    drawn = (tmp_path / "flame.svg").read_text(encoding="utf-8")
    assert "Sidecar.run" in drawn
    assert "Feed._route" not in drawn
