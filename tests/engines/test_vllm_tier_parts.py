"""The host tier's ends against vLLM's own classes, in the engine's environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bench.rig import vllm

CHECKS = Path(__file__).parent / "in_vllm" / "tier_checks.py"

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def said() -> list[str]:
    """The lines that all checks have said, run once."""
    if not vllm.installed():
        pytest.skip(f"vLLM is not installed: {vllm.REMEDY}")
    command = [str(vllm.VENV / "bin" / "python"), str(CHECKS)]
    env = {**os.environ, **vllm.ENVIRONMENT, **vllm.PLUGIN_ENVIRONMENT}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stderr.splitlines()


def passed(said: list[str], kind: str) -> bool:
    """Tell whether every check whose name starts with `kind` has passed."""
    return sum(line.startswith(kind) for line in said) == CHECKS.read_text().count(f"def {kind}")


def test_in_vllm(said: list[str]) -> None:
    assert passed(said, "check_")


@pytest.mark.gpu
def test_in_vllm_on_cuda(said: list[str]) -> None:
    for line in said:
        if line.startswith("skipped: "):
            pytest.skip(line.removeprefix("skipped: "))
    assert passed(said, "cuda_check_")
