"""Copies between vLLM's KV cache and a segment, in the worker's process. For a cache in host memory (the CPU build)."""

from __future__ import annotations

import ctypes
import hashlib
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from vllm.v1.kv_offload.base import (
    CanonicalKVCaches,
    GPULoadStoreSpec,
    LoadStoreSpec,
    OffloadingWorker,
    TransferResult,
)
from vllm.v1.kv_offload.cpu.common import CPULoadStoreSpec

from scalesim_adapters.hostbuf.segment import Segment
from scalesim_adapters.hostbuf.slots import Slots
from scalesim_adapters.vllm.plugin.tier import Move


class HostMemory:
    """A segment whose slots each hold the pages of one block, one page per tensor of the KV cache."""

    def __init__(
        self, path: Path, size: int, caches: CanonicalKVCaches, identity: Mapping[str, str], holder: str
    ) -> None:
        """Open or create it for the engine `holder`.

        Raises what `Segment` raises, and `ValueError` where the cache isn't in host memory or not one block fits.
        """
        devices = {str(cache.tensor.device) for cache in caches.tensors}
        if devices != {"cpu"}:
            raise ValueError(f"the KV cache is on {', '.join(sorted(devices))}, not in host memory")
        pages = [cache.page_size_bytes for cache in caches.tensors]
        self.block_bytes = sum(pages)
        self._segment = Segment(path, size)
        self._tensors = [cache.tensor for cache in caches.tensors]
        try:
            shape = {"pages": hashlib.sha256(repr(pages).encode()).hexdigest()}
            self.slots = Slots(self._segment.buffer, self.block_bytes, {**identity, **shape}, holder)
            if not self.slots.count:
                raise ValueError(f"{size:,} bytes are too few for one block of {self.block_bytes:,} bytes")
        except ValueError:
            self._segment.close()
            raise
        host = ctypes.addressof(ctypes.c_char.from_buffer(self._segment.buffer)) + self.slots.data_offset
        self._bounce = ctypes.create_string_buffer(max(pages))
        self._pages: list[tuple[int, int, int, int]] = []
        for tensor, page in zip(self._tensors, pages, strict=True):
            self._pages.append((tensor.data_ptr(), tensor.stride(0) * tensor.element_size(), host, page))
            host += page

    def close(self) -> None:
        """Let go of the segment; its content stays."""
        self._segment.close()

    def save(self, block: int, slot: int) -> None:
        """Copy a block's pages to a slot."""
        for device, stride, host, page in self._pages:
            ctypes.memmove(host + slot * self.slots.stride, device + block * stride, page)

    def load(self, slot: int, block: int) -> None:
        """Copy a slot's pages to a block."""
        for device, stride, host, page in self._pages:
            ctypes.memmove(device + block * stride, host + slot * self.slots.stride, page)

    def exchange(self, block: int, slot: int) -> None:
        """Let a block and a slot change their pages."""
        for device, stride, host, page in self._pages:
            here, there = device + block * stride, host + slot * self.slots.stride
            ctypes.memmove(self._bounce, there, page)
            ctypes.memmove(there, here, page)
            ctypes.memmove(here, self._bounce, page)


class HostWorker(OffloadingWorker):
    """Does the copies when it is told to, at once: they are finished when the call returns."""

    def __init__(self, memory: HostMemory) -> None:
        self.memory = memory
        self._exchanged: set[int] = set()
        self._finished: list[TransferResult] = []

    def move(self, moves: Sequence[Move]) -> tuple[int, float]:
        """Do a step's moves; return the bytes written to the host and the seconds taken."""
        started = time.perf_counter()
        slots = self.memory.slots
        self._exchanged.clear()
        for move in moves:
            slots.withdraw(move.slot)
            if move.exchange:
                self.memory.exchange(move.block, move.slot)
                self._exchanged.add(move.slot)
            else:
                self.memory.save(move.block, move.slot)
            slots.publish(move.slot, move.key)
        return len(moves) * self.memory.block_bytes, time.perf_counter() - started

    def discard(self) -> None:
        """Empty all slots; no later process uses what they come to hold."""
        self.memory.slots.discard()

    def submit_load(self, job_id: int, src_spec: LoadStoreSpec, dst_spec: GPULoadStoreSpec) -> bool:
        """Load blocks; those that came by an exchange in this step are there already."""
        assert isinstance(src_spec, CPULoadStoreSpec)
        started = time.perf_counter()
        pairs = list(zip(src_spec.block_ids.tolist(), dst_spec.block_ids.tolist(), strict=True))
        for slot, block in pairs:
            if slot not in self._exchanged:
                self.memory.load(slot, block)
        self._finish(job_id, len(pairs), started)
        return True

    def submit_store(self, job_id: int, src_spec: GPULoadStoreSpec, dst_spec: LoadStoreSpec) -> bool:
        """Store blocks under no key: a manager that works with jobs keeps the keys to itself."""
        assert isinstance(dst_spec, CPULoadStoreSpec)
        started = time.perf_counter()
        pairs = list(zip(src_spec.block_ids.tolist(), dst_spec.block_ids.tolist(), strict=True))
        for block, slot in pairs:
            self.memory.slots.withdraw(slot)
            self.memory.save(block, slot)
        self._finish(job_id, len(pairs), started)
        return True

    def get_finished(self) -> list[TransferResult]:
        """Return the jobs finished since the last call."""
        finished, self._finished = self._finished, []
        return finished

    def wait(self, job_ids: set[int]) -> None:
        """Every job is finished already."""

    def shutdown(self) -> None:
        """Let go of the segment."""
        self.memory.close()

    def _finish(self, job_id: int, blocks: int, started: float) -> None:
        seconds = time.perf_counter() - started
        self._finished.append(TransferResult(job_id, True, blocks * self.memory.block_bytes, seconds))


class NoWorker(OffloadingWorker):
    """Stands for a worker where there is no tier: it is never given anything to do."""

    def submit_load(self, job_id: int, src_spec: LoadStoreSpec, dst_spec: GPULoadStoreSpec) -> bool:
        """Refuse."""
        return False

    def submit_store(self, job_id: int, src_spec: GPULoadStoreSpec, dst_spec: LoadStoreSpec) -> bool:
        """Refuse."""
        return False

    def get_finished(self) -> list[TransferResult]:
        """Return nothing."""
        return []

    def wait(self, job_ids: set[int]) -> None:
        """Wait for nothing."""
