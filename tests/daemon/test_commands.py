"""The commands name the missing extra, and hide no other failure."""

from __future__ import annotations

import subprocess
import sys

import pytest

# A fresh interpreter in which one package can't be found, as where the extra isn't installed.
BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
from scalesim_daemon import commands
sys.argv = [{command!r}, "--help"]
commands.{command}()
"""


def run(command: str, blocked: str) -> subprocess.CompletedProcess[str]:
    code = BLOCKED.format(command=command, blocked=blocked)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, check=False
    )


@pytest.mark.parametrize("command", ["scalesimd", "scalesimctl"])
def test_a_missing_extra_is_named(command: str) -> None:
    done = run(command, "typer")
    assert done.returncode == 2
    assert "pip install 'scalesim-sidecar[daemon]'" in done.stderr
    assert "typer can't be imported" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_broken_package_of_our_own_is_not_taken_for_a_missing_extra() -> None:
    done = run("scalesimd", "scalesim_adapters")
    assert done.returncode == 1
    assert "pip install" not in done.stderr
    assert "ModuleNotFoundError: No module named 'scalesim_adapters" in done.stderr
