"""Host buffers on a CUDA device; where there is none, what is skipped says so by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from scalesim_adapters.hostbuf.segment import Segment

SIZE = 4 << 20
OPEN = """
import sys
from cupy.cuda import runtime
address = runtime.ipcOpenMemHandle(bytes.fromhex(sys.argv[1]))
copy = bytearray(int(sys.argv[2]))
import ctypes
runtime.memcpy(ctypes.addressof(ctypes.c_char.from_buffer(copy)), address, len(copy), runtime.memcpyDeviceToHost)
runtime.ipcCloseMemHandle(address)
sys.stdout.buffer.write(copy)
"""


def bench(**env: str) -> tuple[list[str], dict[str, Any]]:
    """Run the bench on small buffers; return what it prints, and its JSON object."""
    command = [sys.executable, "-m", "bench.gpu", "--mib", "64"]
    ran = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=50)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    return lines, json.loads(lines[-1])


def test_without_a_device_the_bench_names_what_it_skips_and_why() -> None:
    lines, figures = bench(CUDA_VISIBLE_DEVICES="")
    assert figures["device"] is None
    assert set(figures["skipped"]) == {"bandwidth", "handover", "overlap"}
    for name, why in figures["skipped"].items():
        assert f"skipped: {name}: {why}" in lines
        assert "isn't installed" in why or "no CUDA device" in why


@pytest.fixture
def cuda() -> Any:
    """The module under test, on a machine with a CUDA device."""
    cupy = pytest.importorskip("cupy", reason="cupy isn't installed: pip install '.[gpu]'")
    try:
        cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"cupy finds no CUDA device: {error}")
    from scalesim_adapters.hostbuf import cuda

    return cuda


@pytest.mark.gpu
def test_another_process_reads_what_was_staged_from_a_registered_buffer(cuda: Any) -> None:
    segment = Segment(Path(f"/dev/shm/scalesim-test-{os.getpid()}"), SIZE)
    segment.path.unlink()
    content = os.urandom(SIZE)
    segment.buffer[:] = content
    with cuda.registered(segment.buffer) as address, cuda.staged(address, SIZE) as handle:
        command = [sys.executable, "-c", OPEN, handle.hex(), str(SIZE)]
        assert subprocess.run(command, capture_output=True, check=True).stdout == content
    segment.close()


@pytest.mark.gpu
def test_the_bench_measures_on_a_device() -> None:
    if find_spec("torch") is None:
        pytest.skip("torch isn't installed: pip install '.[gpu]'")
    _, figures = bench()
    if figures["device"] is None:
        pytest.skip(figures["skipped"]["bandwidth"])
    assert figures["bandwidth"]["buffer_over_pinned"] >= 0.95
    assert figures["overlap"]["hidden"] > 0
