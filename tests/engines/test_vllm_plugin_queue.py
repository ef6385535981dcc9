"""The queue by due against vLLM's own classes, in the engine's environment. That has no pytest and needs none: one
process runs all checks of `in_vllm/queue_checks.py`, and each is reported here by its name."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.rig import vllm

CHECKS = Path(__file__).parent / "in_vllm" / "queue_checks.py"
NAMES = [
    node.name
    for node in ast.parse(CHECKS.read_text()).body
    if isinstance(node, ast.FunctionDef) and node.name.startswith("check_")
]
WITHIN = 240

pytestmark = [pytest.mark.engine, pytest.mark.timeout(WITHIN + 10)]


@pytest.fixture(scope="module")
def reports() -> dict[str, Any]:
    """What became of each check."""
    command = [str(vllm.VENV / "bin" / "python"), str(CHECKS)]
    ran = subprocess.run(
        command,
        env={**os.environ, **vllm.ENVIRONMENT, **vllm.PLUGIN_ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=WITHIN,
    )
    assert ran.returncode == 0, ran.stderr
    lines = (json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{"))
    return {report["check"]: report for report in lines}


@pytest.mark.parametrize("name", NAMES)
def test_in_vllm(reports: dict[str, Any], name: str) -> None:
    report = reports[name]
    assert report["error"] is None, report["error"]
    print(report["said"])
