"""The worker's end of the host tier: a segment whose slots hold blocks of vLLM's KV cache, and who copies them."""

from __future__ import annotations

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
from scalesim_adapters.vllm.plugin.pages import KINDS
from scalesim_adapters.vllm.plugin.tier import Move


class HostMemory:
    """A segment whose slots each hold the pages of one block, one page per tensor of the KV cache."""

    def __init__(
        self, path: Path, size: int, caches: CanonicalKVCaches, identity: Mapping[str, str], holder: str
    ) -> None:
        """Open or create it for the engine `holder`.

        Raises what `Segment` raises, and `ValueError` where the cache is neither in host memory nor on one CUDA device,
        or not one block fits.
        """
        devices = {cache.tensor.device for cache in caches.tensors}
        kind = KINDS.get(next(iter(devices)).type) if len(devices) == 1 else None
        if kind is None:
            where = ", ".join(sorted(map(str, devices)))
            raise ValueError(f"the KV cache is on {where}, neither in host memory nor on one CUDA device")
        pages = [cache.page_size_bytes for cache in caches.tensors]
        self.block_bytes = sum(pages)
        self._segment = Segment(path, size)
        try:
            shape = {"pages": hashlib.sha256(repr(pages).encode()).hexdigest()}
            self.slots = Slots(self._segment.buffer, self.block_bytes, {**identity, **shape}, holder)
            if not self.slots.count:
                raise ValueError(f"{size:,} bytes are too few for one block of {self.block_bytes:,} bytes")
            self.pages = kind(caches.tensors, self._segment.buffer, self.slots)
        except (ValueError, RuntimeError):
            self._segment.close()
            raise

    def close(self) -> None:
        """Let go of the segment; its content stays."""
        self.pages.close()
        self._segment.close()


class HostWorker(OffloadingWorker):
    """Does the copies when it is told to, at once: they are finished when the call returns."""

    def __init__(self, memory: HostMemory) -> None:
        self.memory = memory
        self._exchanged: set[int] = set()
        self._finished: list[TransferResult] = []

    def move(self, moves: Sequence[Move]) -> tuple[int, float]:
        """Do a step's moves; return the bytes written to the host and the seconds taken."""
        started = time.perf_counter()
        slots, pages = self.memory.slots, self.memory.pages
        self._exchanged = {move.slot for move in moves if move.exchange}
        for move in moves:
            slots.withdraw(move.slot)
            (pages.exchange if move.exchange else pages.save)(move.block, move.slot)
        if moves:
            pages.finish()
        for move in moves:
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
                self.memory.pages.load(slot, block)
        self.memory.pages.finish()
        self._finish(job_id, len(pairs), started)
        return True

    def submit_store(self, job_id: int, src_spec: GPULoadStoreSpec, dst_spec: LoadStoreSpec) -> bool:
        """Store blocks under no key: a manager that works with jobs keeps the keys to itself."""
        assert isinstance(dst_spec, CPULoadStoreSpec)
        started = time.perf_counter()
        pairs = list(zip(src_spec.block_ids.tolist(), dst_spec.block_ids.tolist(), strict=True))
        for block, slot in pairs:
            self.memory.slots.withdraw(slot)
            self.memory.pages.save(block, slot)
        self.memory.pages.finish()
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
