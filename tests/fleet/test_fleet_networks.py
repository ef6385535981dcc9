"""Daemons on hosts of their own, whose links are cut: nothing of theirs arrives when another drives the engine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench.fleet.__main__ import play
from bench.fleet.net import inside, missing
from bench.fleet.schedule import Kind, draw

pytestmark = [pytest.mark.fleet, pytest.mark.timeout(300)]

KINDS = (Kind.DAEMON_KILLED, Kind.STORE_LOST, Kind.HOST_UNPLUGGED)
SEED = 9


@pytest.fixture(scope="module", autouse=True)
def _namespaces() -> None:
    try:
        missing()
    except OSError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("how", ["cancelled", "frozen"])
def test_what_a_cut_off_daemon_sent_never_comes_late(how: str) -> None:
    """Its kernel keeps it, and would send it when the link is back: after the lease."""
    command = inside([sys.executable, "-m", "tests.fleet.late", how])
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr


def test_a_schedule_of_partitions_finds_nothing() -> None:
    assert {fault.kind for fault in draw(SEED, KINDS).faults} == set(KINDS)
    (outcome,) = play([SEED], KINDS, 1)
    assert outcome.clean, outcome
    assert outcome.acts and outcome.calls > 20
