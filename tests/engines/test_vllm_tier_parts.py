"""The host tier's ends against vLLM's own classes, in the engine's environment."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from bench.rig import vllm

CHECKS = Path(__file__).parent / "in_vllm" / "tier_checks.py"

pytestmark = pytest.mark.engine


def test_in_vllm() -> None:
    if not vllm.installed():
        pytest.skip(f"vLLM is not installed: {vllm.REMEDY}")
    command = [str(vllm.VENV / "bin" / "python"), str(CHECKS)]
    env = {**os.environ, **vllm.ENVIRONMENT, **vllm.PLUGIN_ENVIRONMENT}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.count("check_") == CHECKS.read_text().count("def check_")
