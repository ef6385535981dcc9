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
    """What the benchmarks wrote: measured on vLLM, simulated, and simulated with the largest populations."""

    vllm: Result | None = None
    policy: Mapping[str, Any] | None = None
    scale: Mapping[str, Any] | None = None

    @property
    def measured(self) -> Classes:
        """The measured rows. Where dues are shuffled on their way the daemon's own order is not what the engine was
        told: it is left out."""
        if self.vllm is None:
            return {}
        classes: Classes = msgspec.to_builtins(self.vllm.classes)
        return {
            name: {
                variant: {**row, "order_accuracy": None} if variant == SHUFFLED else row
                for variant, row in variants.items()
            }
            for name, variants in classes.items()
        }

    @property
    def sources(self) -> dict[str, Classes]:
        """The rows of each source of figures, by its title; without any where it wasn't run."""
        engines = {} if self.policy is None else self.policy["engines"]
        simulated = {f"{name}, simulated": engine["classes"] for name, engine in engines.items()}
        return {"vLLM, measured": self.measured} | simulated


def load(folder: Path) -> Files:
    """Read what is there. Raises `OSError`, `ValueError`, and `msgspec.ValidationError`."""
    measured = folder / "engine-vllm.json"
    return Files(
        read(measured) if measured.exists() else None,
        _read(folder / "policy.json"),
        _read(folder / "scale.json"),
    )


def _read(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    figures = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(figures, dict):
        raise ValueError(f"{path} holds no JSON object")
    return figures
