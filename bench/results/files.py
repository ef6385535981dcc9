"""The figures that the benchmarks left, and the page beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.results.page import TITLES, Files

PAGE = Path("docs/results.md")
FOLDER = Path("docs/results")


def load(folder: Path) -> Files:
    """Read what is there. Raises `OSError` and `ValueError`."""
    engines = {name: _read(folder / f"engine-{name}.json") for name in TITLES}
    return Files(
        {name: figures for name, figures in engines.items() if figures is not None},
        _read(folder / "policy.json"),
    )


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    figures = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(figures, dict):
        raise ValueError(f"{path} holds no JSON object")
    return figures
