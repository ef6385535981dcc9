"""Host buffers and CUDA on the daemon's side: registration for DMA, and device memory that another process opens.

Needs cupy (the extra `gpu`), which is used here alone; an engine registers by its own means (`vllm/plugin/pages.py`).

Only `bench/gpu` calls this, and the daemon makes no CUDA context: one takes some hundred MB of device memory, and what
is staged takes memory of which the engine could have made a slot instead. Saved is the way from pinned host memory,
about a millisecond for a LoRA of 50 MB over PCIe 5. `make bench-gpu` measures both; it has not been run on a GPU yet.
Until it shows a gain, engines load LoRAs from host memory.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager

from cupy.cuda import runtime


@contextmanager
def registered(buffer: mmap.mmap) -> Iterator[int]:
    """Register mapped memory for DMA, and yield its address. Raises cupy's `CUDARuntimeError`."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    runtime.hostRegister(address, len(buffer), 0)
    try:
        yield address
    finally:
        runtime.hostUnregister(address)


@contextmanager
def staged(address: int, size: int) -> Iterator[bytes]:
    """Copy `size` bytes of host memory to an allocation of their own on the current device, and yield its IPC handle of
    64 bytes, by which another process opens it.

    Whoever has opened it closes it before this ends, which frees it. Raises cupy's `CUDARuntimeError`.
    """
    device = runtime.malloc(size)
    try:
        runtime.memcpy(device, address, size, runtime.memcpyHostToDevice)
        yield bytes(runtime.ipcGetMemHandle(device))
    finally:
        runtime.free(device)
