"""A LoRA's bytes that one process has staged on the device and another copies into a slot of its own.

The engine's side of the hand-over is here, and no plug-in has it: whether it gains anything over pinned host memory is
what this measures, and it has not been run on a GPU yet.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch

from bench.gpu.transfer import SHARED, gib, in_turns
from scalesim_adapters.hostbuf.segment import Segment

LORA_BYTES: Final = 64 << 20
LAZY_PEER_ACCESS: Final = 1  # cudaIpcMemLazyEnablePeerAccess, the only flag there is


def handover() -> dict[str, float]:
    """Copy a staged LoRA, and the same bytes from pinned memory, into a slot, in turns.

    Return both times and the opening's in seconds, and what the staging process takes of the device's memory in GiB,
    with the staged bytes and without them.
    """
    slot = torch.empty(LORA_BYTES, dtype=torch.int8, device="cuda")
    pinned = torch.empty(LORA_BYTES, dtype=torch.int8, pin_memory=True).random_()
    free, _ = torch.cuda.mem_get_info()
    with _staging(pinned) as handle:
        taken = free - torch.cuda.mem_get_info()[0]
        started = time.perf_counter()
        with opened(handle, LORA_BYTES) as staged:
            opening = time.perf_counter() - started
            from_host, from_device = in_turns(
                lambda: slot.copy_(pinned, non_blocking=True), lambda: slot.copy_(staged, non_blocking=True)
            )
            slot.zero_()
            slot.copy_(staged)
            if not torch.equal(slot.cpu(), pinned):
                raise RuntimeError("the handle leads to other bytes than were staged")
    return {
        "open_s": opening,
        "staged_to_slot_s": from_device,
        "pinned_to_slot_s": from_host,
        "staging_process_gib": gib(taken),
        "its_context_gib": gib(taken - LORA_BYTES),
    }


@contextmanager
def opened(handle: bytes, size: int) -> Iterator[torch.Tensor]:
    """Open another process's allocation by its IPC handle; the tensor is to be used within the block alone."""
    cudart = _cudart()
    address = ctypes.c_void_p()
    _check(
        cudart.cudaIpcOpenMemHandle(ctypes.byref(address), _Handle.from_buffer_copy(handle), LAZY_PEER_ACCESS)
    )
    try:
        yield torch.as_tensor(_Array(address.value, size), device="cuda")
    finally:
        torch.cuda.synchronize()
        _check(cudart.cudaIpcCloseMemHandle(address))


class _Handle(ctypes.Structure):
    _fields_ = (("reserved", ctypes.c_byte * 64),)


class _Array:
    """Device memory as numba's CUDA array interface, version 3, describes it; torch reads that."""

    def __init__(self, address: int | None, size: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (size,),
            "typestr": "|i1",
            "data": (address, False),
            "version": 3,
        }


@contextmanager
def _staging(content: torch.Tensor) -> Iterator[bytes]:
    with tempfile.TemporaryDirectory(prefix="scalesim-bench-", dir=SHARED) as folder:
        lora = Segment(Path(folder) / "lora", content.nbytes)
        lora.buffer[:] = content.numpy().tobytes()
        lora.close()
        command = [sys.executable, "-m", "bench.gpu.staging", str(lora.path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdin is not None and child.stdout is not None
            try:
                handle = child.stdout.readline()
                if not handle:
                    raise RuntimeError("the process that stages has failed; its reason stands above")
                yield bytes.fromhex(handle)
            finally:
                child.stdin.close()


def _cudart() -> ctypes.CDLL:
    """Return the CUDA runtime that torch has loaded: a second one would be another matter."""
    mapped = Path("/proc/self/maps").read_text().splitlines()
    path = next(line.split(maxsplit=5)[-1] for line in mapped if "libcudart" in line)
    return ctypes.CDLL(path)


def _check(error: int) -> None:
    if error:
        raise RuntimeError(f"CUDA's runtime refused with error {error}")
