from __future__ import annotations

import subprocess
import sys

import pytest

# Blocks of a MiB; every other one is outgrown, after one of them has been freed.
GROWN = """
from pathlib import Path
from scalesim_daemon.allocation import map_large_blocks

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) // 1024

{first}
del (first := [b"x" * 2**20])[:]
blocks = [b"%d" % number * 2**20 for number in range(10)] + [bytes(b"x") * (2**20 + n) for n in range(100)]
full = resident()
del blocks[::2]
print(full - resident())
"""


def freed(first: str) -> int:
    """Return how many MiB go back to the system."""
    out = subprocess.run(
        [sys.executable, "-c", GROWN.format(first=first)], check=True, stdout=subprocess.PIPE
    )
    return int(out.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="what is resident is read from /proc")
def test_what_large_tables_outgrow_goes_back_to_the_system() -> None:
    assert freed("map_large_blocks()") >= 50
