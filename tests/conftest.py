"""What tests of several parts begin with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

SMALL = 64 * 1024**2


@pytest.fixture(autouse=True)
def logged_to_standard_error() -> None:
    """Daemons in a test's own process log where a daemon does: what a command prints is the command's alone. What
    another test made of the log is gone."""
    structlog.reset_defaults()
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))


@pytest.fixture
def small_shm(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory with room for 64 MiB, as /dev/shm is in many a container."""
    folder = tmp_path / "shm"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL},mode=700", "scalesim-test", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
