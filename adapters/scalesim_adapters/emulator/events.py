"""KV cache events in vLLM 0.32's form: maps with a `type`, absent keys for defaults, in an array of three.

The order and the presence of keys follow what the engine sends, so that equal events give equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

MEDIUM = "GPU"
"""What vLLM calls the device's own memory, on a CPU too."""


class BlockStored(msgspec.Struct, omit_defaults=True, tag=True, frozen=True):
    """A chain of blocks became resident after `parent_block_hash`, which is None at the root."""

    block_hashes: list[int]
    parent_block_hash: int | None
    token_ids: list[int]
    block_size: int
    lora_id: int | None
    medium: str
    lora_name: str | None
    extra_keys: list[list[str] | None] | None = None
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None
    session_id: str | None = None


class BlockRemoved(msgspec.Struct, omit_defaults=True, tag=True, frozen=True):
    """One copy of each block left."""

    block_hashes: list[int]
    medium: str
    group_idx: int | None = None


class AllBlocksCleared(msgspec.Struct, omit_defaults=True, tag=True, frozen=True):
    """Nothing is resident any more."""


KVEvent = BlockStored | BlockRemoved | AllBlocksCleared


def encode_batch(timestamp: float, events: Sequence[KVEvent], rank: int = 0) -> bytes:
    """Return a message's payload: msgpack of `[seconds since the epoch, [events], data parallel rank]`."""
    return msgspec.msgpack.encode([timestamp, events, rank])
