"""Parts of a real vLLM without a model: its cache manager over so many blocks, and requests of agents."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from time import monotonic
from typing import Any

import torch
from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.core.kv_cache_utils import get_request_block_hasher, init_none_hash
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.request import Request

from scalesim_adapters.dues import DueTable
from scalesim_adapters.vllm.plugin.pool import DueBlockPool, install

BLOCK = 4
CLOCK = "clock"

init_none_hash(sha256)
_hasher = get_request_block_hasher(BLOCK, sha256)
_numbers = count()


def stock_manager(blocks: int) -> KVCacheManager:
    """Return a cache manager with room for `blocks` blocks and vLLM's null block."""
    spec = FullAttentionSpec(block_size=BLOCK, num_kv_heads=1, head_size=1, dtype=torch.float32)
    config = KVCacheConfig(
        num_blocks=blocks + 1, kv_cache_tensors=[], kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)]
    )
    return KVCacheManager(
        config,
        max_model_len=1 << 20,
        scheduler_block_size=BLOCK,
        hash_block_size=BLOCK,
        enable_kv_cache_events=True,
    )


def due_manager(blocks: int, table: DueTable) -> KVCacheManager:
    """Return one that evicts by the table."""
    manager = stock_manager(blocks)
    install(manager, table)
    return manager


def pool_of(manager: KVCacheManager) -> DueBlockPool:
    """Return the pool of a `due_manager`."""
    pool = manager.block_pool
    assert isinstance(pool, DueBlockPool)
    return pool


def fresh_table(dues: Mapping[str, float] | None = None) -> DueTable:
    """Return a table that is heard for ever; its one clock stands at 0."""
    table = DueTable(silence=math.inf)
    tell(table, dues or {}, kind="snapshot")
    return table


def tell(table: DueTable, dues: Mapping[str, float | None], now: float = 0.0, kind: str = "delta") -> None:
    """Let the table hear dues, and that its clock shows `now`."""
    places = {agent: None if due is None else (CLOCK, due) for agent, due in dues.items()}
    assert table.apply({"type": kind, "clocks": {CLOCK: (now, 1.0)}, "dues": places}, monotonic())


def request(agent: str | None, tokens: Sequence[int]) -> Request:
    """Return an agent's request."""
    return Request(
        request_id=f"r{next(_numbers)}",
        prompt_token_ids=list(tokens),
        sampling_params=SamplingParams(max_tokens=1),
        pooling_params=None,
        block_hasher=_hasher,
        session_id=agent,
    )


def begin(manager: KVCacheManager, wanted: Request) -> int | None:
    """Do for a request what the scheduler does at its first step; return its cached tokens, None where it doesn't
    fit now."""
    hits, cached, _ = manager.get_computed_blocks(wanted)
    given = manager.allocate_slots(wanted, wanted.num_tokens - cached, cached, hits)
    return None if given is None else int(cached)


def serve(manager: KVCacheManager, agent: str | None, tokens: Sequence[int]) -> int:
    """Serve a request from its begin to its end; return its cached tokens."""
    wanted = request(agent, tokens)
    cached = begin(manager, wanted)
    assert cached is not None, "it doesn't fit"
    manager.free(wanted)
    return cached


def prompt(seed: int, blocks: int) -> list[int]:
    """Return a prompt of so many blocks that no other seed has, and one token more, which is never cached."""
    return [seed * 1000 + position for position in range(blocks * BLOCK + 1)]


def cached_blocks(manager: KVCacheManager, tokens: Iterable[int]) -> int:
    """Return how many blocks of a prompt are cached, without using them."""
    found: Any = manager.coordinator.find_longest_cache_hit(request(None, list(tokens)).block_hashes, 1 << 20)
    return int(found[1]) // BLOCK
