"""Notes which blocks vLLM's device pool evicts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm.v1.core.block_pool import BlockPool
from vllm.v1.core.kv_cache_utils import KVCacheBlock


class EvictionWatch:
    """Stands where a pool has its collector of metrics, which is told of every eviction, and passes on what it hears
    to the one that was there. `on_reset` is called when the prefix cache has been reset."""

    def __init__(self, pool: BlockPool, on_reset: Callable[[], object]) -> None:
        self._pool = pool
        self._inner: Any = pool.metrics_collector
        self._on_reset = on_reset
        self._gone: list[tuple[int, bytes]] = []
        pool.metrics_collector = self

    def take(self) -> list[tuple[int, bytes]]:
        """Return the blocks evicted since the last call, as (block id, block hash with group) in their order."""
        gone, self._gone = self._gone, []
        return gone

    def on_device(self, key: bytes) -> bool:
        """Tell whether a block with this hash is in the prefix cache."""
        return self._pool.cached_block_hash_to_block.get_one_block(key) is not None

    def on_block_evicted(self, block: KVCacheBlock) -> None:
        """A block is about to lose its hash, if it has one."""
        if block.block_hash is not None:
            self._gone.append((block.block_id, block.block_hash))
        if self._inner is not None:
            self._inner.on_block_evicted(block)

    def on_block_allocated(self, block: KVCacheBlock) -> None:
        """A block is given to a request."""
        if self._inner is not None:
            self._inner.on_block_allocated(block)

    def on_block_accessed(self, block: KVCacheBlock) -> None:
        """A request has hit a cached block."""
        if self._inner is not None:
            self._inner.on_block_accessed(block)

    def reset(self) -> None:
        """The prefix cache has been reset."""
        self._gone.clear()
        if self._inner is not None:
            self._inner.reset()
        self._on_reset()
