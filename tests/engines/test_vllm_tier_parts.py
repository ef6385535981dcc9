"""The host tier's ends against vLLM's own classes, in the engine's environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bench.rig import vllm

CHECKS = Path(__file__).parent / "in_vllm" / "tier_checks.py"

pytestmark = pytest.mark.engine


def run(kind: str) -> subprocess.CompletedProcess[str]:
    """Run the checks whose names start with `kind`."""
    if not vllm.installed():
        pytest.skip(f"vLLM is not installed: {vllm.REMEDY}")
    command = [str(vllm.VENV / "bin" / "python"), str(CHECKS), kind]
    env = {**os.environ, **vllm.ENVIRONMENT, **vllm.PLUGIN_ENVIRONMENT}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


def test_in_vllm() -> None:
    ran = run("check_")
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("check_") == CHECKS.read_text().count("def check_")


@pytest.mark.gpu
def test_in_vllm_on_cuda() -> None:
    ran = run("cuda_check_")
    if "skipped: " in ran.stderr:
        pytest.skip(ran.stderr.rpartition("skipped: ")[2].strip())
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("check_") == CHECKS.read_text().count("def cuda_check_")
