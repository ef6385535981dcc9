"""No process of an engine outlives whoever started it, whatever way that one ends."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from bench.rig.process import ROOT

WITHIN_MS = 10_000
# Two processes, one of them in a session of its own; it prints their ids and waits.
FAMILY = "setsid sleep 1000 & echo $!; sleep 1000 & echo $!; wait"


def start(script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "bench.rig.warden", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        start_new_session=True,
    )


def close_pipe(warden: subprocess.Popen[bytes]) -> None:
    assert warden.stdin is not None
    warden.stdin.close()


@pytest.mark.parametrize("end", [close_pipe, subprocess.Popen.terminate])
def test_nothing_is_left(end: Callable[[subprocess.Popen[bytes]], None]) -> None:
    with start(FAMILY) as warden:
        assert warden.stdout is not None
        family = [os.pidfd_open(int(warden.stdout.readline())) for _ in range(2)]
        end(warden)
        assert all(ended(pidfd) for pidfd in family)
    assert warden.returncode == 0


def test_what_a_command_leaves_behind_ends_with_it() -> None:
    with start("setsid sleep 1000 & echo $!; exit 3") as warden:
        assert warden.stdout is not None
        child = os.pidfd_open(int(warden.stdout.readline()))
        assert ended(child)


def test_a_command_may_end_in_its_own_way_after_sigterm() -> None:
    with start("trap 'echo ended; exit' TERM; echo started; while :; do sleep 0.01; done") as warden:
        assert warden.stdout is not None
        assert warden.stdout.readline() == b"started\n"
        warden.send_signal(signal.SIGTERM)
        assert warden.stdout.readline() == b"ended\n"


def ended(pidfd: int) -> bool:
    """Wait for a process to end."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    done = bool(poll.poll(WITHIN_MS))
    os.close(pidfd)
    return done
