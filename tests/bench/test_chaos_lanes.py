"""Lanes clean up, whatever way the process ends that has started them; and their ports are their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.rig.process import PORTS, free_port, keep_to_ports

WITHIN = 30.0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_lane_ends_what_it_plays(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.bench.lane_scene", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
    ) as playing:
        appears(tmp_path / "began")
        if number is signal.SIGKILL:
            playing.kill()
        else:
            # `timeout` tells all of a group, as a terminal does with SIGINT.
            os.killpg(playing.pid, number)
        appears(tmp_path / "ended")
    assert playing.returncode


def appears(path: Path) -> None:
    deadline = time.monotonic() + WITHIN
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} never came"
        os.sched_yield()


def test_lanes_never_find_the_same_port() -> None:
    try:
        found = []
        for share in range(3):
            keep_to_ports(share, 3)
            found.append({free_port() for _ in range(50)})
    finally:
        keep_to_ports(0, 1)
    assert not found[0] & found[1] and not found[1] & found[2] and not found[0] & found[2]
    assert set.union(*found) <= set(PORTS)
