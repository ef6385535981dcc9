"""The figures that the benchmarks left, and the page beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from bench.engine.result import Result, read
from bench.engine.variants import SHUFFLED

PAGE = Path("docs/results.md")
FOLDER = Path("docs/results")

Row = Mapping[str, Any]
"""One variant's figures, named as in `bench.engine.result.Numbers`; simulated ones are fewer."""
Classes = Mapping[str, Mapping[str, Row]]
"""Rows by class and variant."""


@dataclass(frozen=True, slots=True)
class Files:
    """What the benchmarks wrote: measured on vLLM, simulated, simulated with the largest populations, and measured on
    SGLang."""

    vllm: Result | None = None
    policy: Mapping[str, Any] | None = None
    scale: Mapping[str, Any] | None = None
    sglang: Result | None = None

    @property
    def engines(self) -> dict[str, Result | None]:
        """What was measured on each engine, by the engine's title; None where it wasn't run."""
        return {"vLLM": self.vllm, "SGLang": self.sglang}

    @property
    def sources(self) -> dict[str, Classes]:
        """The rows of each source of figures, by its title; vLLM's are none where it wasn't run."""
        measured = {
            f"{title}, measured": measured_rows(result)
            for title, result in self.engines.items()
            if result is not None or title == "vLLM"
        }
        engines = {} if self.policy is None else self.policy["engines"]
        return measured | {f"{name}, simulated": engine["classes"] for name, engine in engines.items()}


def measured_rows(result: Result | None) -> Classes:
    """Return the measured rows. Where dues are shuffled on their way the daemon's own order is not what the engine was
    told: it is left out."""
    if result is None:
        return {}
    classes: Classes = msgspec.to_builtins(result.classes)
    return {
        name: {
            variant: {**row, "order_accuracy": None} if variant == SHUFFLED else row
            for variant, row in variants.items()
        }
        for name, variants in classes.items()
    }


def load(folder: Path) -> Files:
    """Read what is there. Raises `OSError`, `ValueError`, and `msgspec.ValidationError`."""
    return Files(
        _result(folder / "engine-vllm.json"),
        _read(folder / "policy.json"),
        _read(folder / "largest.json"),
        _result(folder / "engine-sglang.json"),
    )


def _result(path: Path) -> Result | None:
    return read(path) if path.exists() else None


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    figures = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(figures, dict):
        raise ValueError(f"{path} holds no JSON object")
    return figures
