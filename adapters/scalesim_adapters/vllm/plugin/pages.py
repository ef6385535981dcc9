"""Copies between the pages of a block in vLLM's KV cache and its slot in a segment.

A slot holds one page of each tensor, one after the other. Copies are done in the order in which they are asked for, and
finished when `finish` returns.
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Sequence
from typing import Any

import torch
from vllm.v1.kv_offload.base import CanonicalKVCacheTensor
from vllm.v1.kv_offload.cpu.host_register import host_register, host_unregister

from scalesim_adapters.hostbuf.slots import Slots

# vLLM registers no more at a time, because drivers limit it (`vllm/v1/kv_offload/cpu/gpu_worker.py`).
REGISTERED_AT_ONCE = 64 * 1024**3


class HostPages:
    """For a cache in host memory. On two cores `memmove` took 1.5 µs for a page of 32 KiB, a tensor's copy 3.7 µs."""

    def __init__(self, caches: Sequence[CanonicalKVCacheTensor], buffer: mmap.mmap, slots: Slots) -> None:
        self._caches = caches  # keeps the memory alive
        self._stride = slots.stride
        self._bounce = ctypes.create_string_buffer(max(cache.page_size_bytes for cache in caches))
        self._pages: list[tuple[int, int, int, int]] = []
        host = _address(buffer) + slots.data_offset
        for cache in caches:
            tensor, page = cache.tensor, cache.page_size_bytes
            self._pages.append((tensor.data_ptr(), tensor.stride(0) * tensor.element_size(), host, page))
            host += page

    def save(self, block: int, slot: int) -> None:
        """Copy a block's pages to a slot."""
        for device, stride, host, page in self._pages:
            ctypes.memmove(host + slot * self._stride, device + block * stride, page)

    def load(self, slot: int, block: int) -> None:
        """Copy a slot's pages to a block."""
        for device, stride, host, page in self._pages:
            ctypes.memmove(device + block * stride, host + slot * self._stride, page)

    def exchange(self, block: int, slot: int) -> None:
        """Let a block and a slot change their pages."""
        for device, stride, host, page in self._pages:
            here, there = device + block * stride, host + slot * self._stride
            ctypes.memmove(self._bounce, there, page)
            ctypes.memmove(there, here, page)
            ctypes.memmove(here, self._bounce, page)

    def finish(self) -> None:
        """Every copy is finished already."""

    def close(self) -> None:
        """There is nothing to let go of."""


class DevicePages:
    """For a cache on a CUDA device: the segment is registered for DMA, and the copies stand in the device's current
    stream, after what computes the blocks and before what overwrites them.

    What can't be registered is copied all the same, only slower; vLLM logs that.
    """

    def __init__(self, caches: Sequence[CanonicalKVCacheTensor], buffer: mmap.mmap, slots: Slots) -> None:
        self._device = caches[0].tensor.device
        # First of all, since a full device has no room for it: nothing of the segment is in use by then.
        largest = max(cache.page_size_bytes for cache in caches)
        self._bounce = torch.empty(largest, dtype=torch.int8, device=self._device)
        size = slots.count * slots.stride
        rows = torch.frombuffer(buffer, dtype=torch.int8, count=size, offset=slots.data_offset)
        rows = rows.view(slots.count, slots.stride)
        self._pages: list[tuple[Any, Any]] = []
        start = 0
        for cache in caches:
            page = cache.page_size_bytes
            self._pages.append((cache.tensor[:, :page], rows[:, start : start + page]))
            start += page
        self._registered: list[int] = []
        if self._device.type == "cuda":
            self._register(_address(buffer) + slots.data_offset, size, slots.stride)

    def save(self, block: int, slot: int) -> None:
        """Copy a block's pages to a slot."""
        for device, host in self._pages:
            host[slot].copy_(device[block], non_blocking=True)

    def load(self, slot: int, block: int) -> None:
        """Copy a slot's pages to a block."""
        for device, host in self._pages:
            device[block].copy_(host[slot], non_blocking=True)

    def exchange(self, block: int, slot: int) -> None:
        """Let a block and a slot change their pages."""
        for device, host in self._pages:
            here, there = device[block], host[slot]
            bounce = self._bounce[: len(there)]
            bounce.copy_(there, non_blocking=True)
            there.copy_(here, non_blocking=True)
            here.copy_(bounce, non_blocking=True)

    def finish(self) -> None:
        """Wait until what was asked for is copied."""
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()

    def close(self) -> None:
        """Let go of the segment's memory."""
        self.finish()
        self._pages.clear()
        for address in self._registered:
            host_unregister(address)
        self._registered.clear()

    def _register(self, address: int, size: int, stride: int) -> None:
        """Register as many whole slots at a time as may be: a copy must not lie in two registrations."""
        step = max(1, REGISTERED_AT_ONCE // stride) * stride
        for offset in range(0, size, step):
            if not host_register(address + offset, min(step, size - offset)):
                return
            self._registered.append(address + offset)


Pages = HostPages | DevicePages
# By the type of the device on which the cache is.
KINDS: dict[str, type[Pages]] = {"cpu": HostPages, "cuda": DevicePages}


def _address(buffer: mmap.mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))
