"""`python -m bench.results`: writes docs/results.md and its plots, and the figures of docs/reliability.md and
docs/performance.md, from docs/results/*.json; runs nothing."""

from __future__ import annotations

import argparse
import json

from bench.chaos import page as reliability
from bench.results.files import FOLDER, PAGE, load
from bench.results.page import render
from bench.results.performance import FIGURES, PERFORMANCE, filled
from bench.results.plots import draw
from bench.soak import page as soaked


def main() -> None:
    """Render and write."""
    argparse.ArgumentParser(prog="python -m bench.results", description=__doc__).parse_args()
    files = load(FOLDER)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render(files), encoding="utf-8")
    draw(files, FOLDER)
    reliability.main()
    soaked.main()
    found = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else None
    PERFORMANCE.write_text(filled(PERFORMANCE.read_text(encoding="utf-8"), found), encoding="utf-8")
    print(f"{PAGE}: {', '.join(title for title, classes in files.sources.items() if classes)}")


if __name__ == "__main__":
    main()
