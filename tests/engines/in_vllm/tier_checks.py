"""Checks of the host tier's ends against vLLM's own classes. They run in the engine's environment:
`tests/engines/test_vllm_tier_parts.py` runs this file."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from unittest import mock

import torch
from engine_parts import due_manager, fresh_table, prompt, serve, stock_manager
from vllm.v1.core.kv_cache_metrics import KVCacheMetricsCollector
from vllm.v1.core.kv_cache_utils import get_block_hash
from vllm.v1.kv_offload.base import CanonicalKVCaches, CanonicalKVCacheTensor, GPULoadStoreSpec
from vllm.v1.kv_offload.cpu.common import CPULoadStoreSpec

from scalesim_adapters.hostbuf.segment import Segment
from scalesim_adapters.hostbuf.slots import read_keys
from scalesim_adapters.vllm.plugin.connector import read_tier_options
from scalesim_adapters.vllm.plugin.evictions import EvictionWatch
from scalesim_adapters.vllm.plugin.hostcopy import HostMemory, HostWorker
from scalesim_adapters.vllm.plugin.pages import KINDS, DevicePages
from scalesim_adapters.vllm.plugin.tier import Move

PAGES = (4096, 512, 24)
BLOCKS = 8
IDENTITY = {"weights": "some"}


def check_every_eviction_is_noted_with_its_hash() -> None:
    for manager in (stock_manager(8), due_manager(8, fresh_table())):
        collector = KVCacheMetricsCollector(sample_rate=1.0)
        manager.block_pool.metrics_collector = collector
        resets: list[int] = []
        watch = EvictionWatch(manager.block_pool, lambda resets=resets: resets.append(1))
        serve(manager, "a", prompt(1, 4))
        assert watch.take() == []
        held = {
            block.block_id: block.block_hash
            for block in manager.block_pool.blocks
            if block.block_hash is not None
        }
        assert len(held) == 4
        assert all(watch.on_device(key) for key in held.values())
        serve(manager, "b", prompt(2, 6))
        gone = watch.take()
        assert gone and all(held[block] == key and not watch.on_device(key) for block, key in gone)
        assert len(gone) == sum(not watch.on_device(key) for key in held.values())
        assert all(len(get_block_hash(key)) == 32 for _, key in gone)
        assert len(collector.drain_events()) >= len(gone), "the engine's own collector is told as before"
        serve(manager, "a", prompt(1, 4))
        assert manager.reset_prefix_cache()
        assert resets == [1]
        assert watch.take() == []


def check_copies_reach_every_page_and_no_other() -> None:
    _check_copies("cpu")


def check_copies_by_torch_reach_every_page_and_no_other() -> None:
    with mock.patch.dict(KINDS, cpu=DevicePages):
        _check_copies("cpu")


def cuda_check_copies_reach_every_page_and_no_other() -> None:
    _check_copies("cuda")


def _check_copies(device: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        caches, tensors = _caches(device=device)
        memory = HostMemory(Path(folder) / "tier", 1 << 16, caches, IDENTITY, "me")
        before = [tensor.clone() for tensor in tensors]
        worker = HostWorker(memory)
        worker.move([Move(2, 0, b"two"), Move(5, 3, b"five")])
        assert all(torch.equal(now, then) for now, then in zip(tensors, before, strict=True))
        worker.move([Move(7, 3, b"seven", exchange=True)])
        _same(tensors, before, {7: 5})
        worker.submit_load(1, CPULoadStoreSpec([0, 3]), GPULoadStoreSpec([1, 7], [2], [0]))
        _same(tensors, before, {7: 5, 1: 2})
        worker.move([])
        worker.submit_load(2, CPULoadStoreSpec([3]), GPULoadStoreSpec([4], [1], [0]))
        _same(tensors, before, {7: 5, 1: 2, 4: 7})
        assert [(result.job_id, result.transfer_size) for result in worker.get_finished()] == [
            (1, 2 * sum(PAGES)),
            (2, sum(PAGES)),
        ]
        assert read_keys(Path(folder) / "tier", "me")[1] == {0: b"two", 3: b"seven"}
        worker.discard()
        assert memory.slots.keys() == {}
        worker.shutdown()


def check_content_is_taken_over_only_for_the_same_pages() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tier"
        caches, _ = _caches()
        first = HostMemory(path, 1 << 16, caches, IDENTITY, "me")
        HostWorker(first).move([Move(1, 1, b"one")])
        first.close()
        again = HostMemory(path, 1 << 16, caches, IDENTITY, "you")
        assert again.slots.kept
        assert again.slots.keys() == {1: b"one"}
        again.close()
        other, _ = _caches(tuple(reversed(PAGES)))
        assert HostMemory(path, 1 << 16, other, IDENTITY, "you").slots.keys() == {}


def check_a_cache_on_another_device_is_refused() -> None:
    caches, _ = _caches(device="meta")
    try:
        HostMemory(Path("/nowhere/tier"), 1 << 16, caches, IDENTITY, "me")
    except ValueError as error:
        assert "is on meta, neither in host memory nor on one CUDA device" in str(error)
    else:
        raise AssertionError("it was accepted")


def check_without_bytes_the_segment_is_as_large_as_it_was_made() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tier"
        options = read_tier_options({"segment": str(path)})
        try:
            options.size()
        except ValueError as error:
            assert "start the daemon that owns it first" in str(error)
        else:
            raise AssertionError("it was accepted")
        Segment(path, 3 << 16).close()
        assert options.size() == 3 << 16
        assert read_tier_options({"segment": str(path), "bytes": 1 << 16}).size() == 1 << 16


def check_a_segment_without_room_for_a_block_is_refused() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tier"
        caches, _ = _caches()
        try:
            HostMemory(path, 4096, caches, IDENTITY, "me")
        except ValueError as error:
            assert "too few for one block" in str(error)
        else:
            raise AssertionError("it was accepted")
        HostMemory(path, 1 << 16, caches, IDENTITY, "me").close()


def _caches(
    pages: tuple[int, ...] = PAGES, device: str = "cpu"
) -> tuple[CanonicalKVCaches, list[torch.Tensor]]:
    """Return a KV cache of several tensors with random content; the last one has gaps between its pages."""

    def noise(page: int) -> torch.Tensor:
        return torch.randint(-128, 127, (BLOCKS, page), dtype=torch.int8, device=device)

    tensors = [noise(page) for page in pages[:-1]] + [noise(3 * pages[-1])[:, : pages[-1]]]
    caches = [CanonicalKVCacheTensor(tensor, page) for tensor, page in zip(tensors, pages, strict=True)]
    return CanonicalKVCaches(caches, []), tensors


def _same(tensors: list[torch.Tensor], before: list[torch.Tensor], changed: dict[int, int]) -> None:
    """Every block has the content that it, or the block it was changed to, had before."""
    for now, then in zip(tensors, before, strict=True):
        for block in range(BLOCKS):
            assert torch.equal(now[block], then[changed.get(block, block)]), (block, changed)


def main() -> None:
    """Run all checks, those for CUDA where there is a device; the first that fails ends the process with its
    traceback."""
    _run("check_")
    if torch.cuda.is_available():
        _run("cuda_check_")
    else:
        print("skipped: torch finds no CUDA device", file=sys.stderr)


def _run(kind: str) -> None:
    for name, check in list(globals().items()):
        if name.startswith(kind):
            check()
            print(name, file=sys.stderr)


if __name__ == "__main__":
    main()
