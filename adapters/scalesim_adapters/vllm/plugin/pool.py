"""vLLM's block pool and cache manager, which also note whose a cached block is, by the requests' `session_id`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import vllm
from vllm.v1.core.block_pool import BlockPool
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.kv_cache_utils import FreeKVCacheBlockQueue, KVCacheBlock

from scalesim_adapters.blockusers import BlockUsers
from scalesim_adapters.dues import DueTable
from scalesim_adapters.vllm.plugin import versions
from scalesim_adapters.vllm.plugin.queue import DueQueue

INTERNALS: dict[type, dict[str, tuple[str, ...]]] = {
    FreeKVCacheBlockQueue: {
        "popleft": ("self",),
        "popleft_n": ("self", "n"),
        "remove": ("self", "block"),
        "append": ("self", "block"),
        "append_n": ("self", "blocks"),
        "prepend_n": ("self", "blocks"),
        "get_all_free_blocks": ("self",),
    },
    BlockPool: {
        "cache_full_blocks": ("self", "request", "blocks", "num_cached_blocks", "num_full_blocks"),
        "get_new_blocks": ("self", "num_blocks"),
        "touch": ("self", "blocks"),
        "free_blocks": ("self", "ordered_blocks"),
        "reset_prefix_cache": ("self",),
        "_maybe_evict_cached_block": ("self", "block"),
    },
    KVCacheManager: {"get_computed_blocks": ("self", "request"), "take_events": ("self",)},
}


class DueBlockPool(BlockPool):
    """A pool that evicts by due."""

    users: BlockUsers[int]
    free_block_queue: DueQueue

    def cache_full_blocks(
        self,
        request: Any,
        blocks: list[KVCacheBlock],
        num_cached_blocks: int,
        num_full_blocks: int,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        """Cache full blocks of a request: they are its agent's."""
        super().cache_full_blocks(request, blocks, num_cached_blocks, num_full_blocks, *args, **kwargs)
        if request.session_id:
            stored = (
                block.block_id for block in blocks[num_cached_blocks:num_full_blocks] if block.block_hash
            )
            self.users.stored(stored, request.session_id)

    def reset_prefix_cache(self) -> bool:
        """Empty the cache, where no request holds a block of it."""
        done = bool(super().reset_prefix_cache())
        if done:
            self.users.clear()
            self.free_block_queue.all_emptied()
        return done

    def evict_agent(self, agent: str) -> int:
        """Evict what only this agent uses and no request holds, and let it share the rest no longer; return how
        many blocks were evicted."""
        idle = [block for block in map(self.blocks.__getitem__, self.users.leave(agent)) if not block.ref_cnt]
        for block in idle:
            self._maybe_evict_cached_block(block)
            self.free_block_queue.remove(block)
        self.free_block_queue.prepend_n(idle)
        return len(idle)

    def _maybe_evict_cached_block(self, block: KVCacheBlock) -> bool:
        self.users.evicted(block.block_id)
        evicted = bool(super()._maybe_evict_cached_block(block))
        if evicted and block.next_free_block is not None:
            self.free_block_queue.emptied(block)
        return evicted


class DueCacheManager(KVCacheManager):
    """A manager whose hits are noted."""

    block_pool: DueBlockPool

    def get_computed_blocks(self, request: Any) -> Any:
        """Look up what is cached of a request: its agent uses that too."""
        found = super().get_computed_blocks(request)
        if request.session_id:
            groups: Sequence[Sequence[KVCacheBlock]] = found[0].blocks
            hits = (block.block_id for group in groups for block in group if not block.is_null)
            self.block_pool.users.hit(hits, request.session_id)
        return found


def refusal(manager: Any) -> str | None:
    """Return why a manager had better keep its own eviction, None where it is as we know it."""
    pool = manager.block_pool
    why = versions.refusal(vllm.__version__, INTERNALS)
    if why is not None:
        return why
    if type(manager) is not KVCacheManager or type(pool) is not BlockPool:
        return f"it runs with {type(manager).__name__} and {type(pool).__name__}"
    if any(part.block_pool is not pool for part in manager.coordinator.single_type_managers):
        return "it runs with several block pools"
    return None if pool.enable_caching else "prefix caching is off"


def install(manager: KVCacheManager, table: DueTable) -> DueBlockPool:
    """Make a manager and its pool, both new, evict by the table.

    Every part of the engine already holds the two objects, hence they stay and change their class.
    """
    pool: Any = manager.block_pool
    pool.users = BlockUsers()
    pool.free_block_queue = DueQueue(pool.free_block_queue.get_all_free_blocks(), table, pool.users)
    pool.__class__ = DueBlockPool
    manager.__class__ = DueCacheManager
    due: DueBlockPool = pool
    return due
