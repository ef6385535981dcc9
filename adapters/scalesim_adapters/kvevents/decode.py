"""From KV event batches to residency events: pure.

A batch is a MessagePack array `[ts, [event, ...], data_parallel_rank]`. An event is a map with a `type`
(`vllm/distributed/kv_events.py`, 0.32; `sglang/srt/disaggregation/kv_events.py`, 0.5.23); earlier versions sent
arrays that begin with the type: both are read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec

from scalesim_adapters.base import BlockHash, Cleared, FeedLost, Removed, ResidencyEvent, Stored, Tier

TIERS = {
    "GPU": Tier.DEVICE,
    "CPU": Tier.HOST,
    "CPU_PINNED": Tier.HOST,
    "STORAGE": Tier.STORAGE,
    "DISK": Tier.STORAGE,
}
# A model may keep several groups of blocks. Those of full attention decide how far a prefix is reusable.
FULL_ATTENTION = frozenset({"full_attention", "mla_attention", "sink_full_attention"})
# What msgspec raises for bytes that are no batch: also text that isn't UTF-8, arrays too deep, or longer than memory.
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, MemoryError)


class _Stored(msgspec.Struct, tag="BlockStored", gc=False):
    block_hashes: list[int | bytes]
    parent_block_hash: int | bytes | None
    token_ids: list[Annotated[int, msgspec.Meta(ge=0, lt=2**32)]]
    block_size: int
    lora_id: Any = None
    medium: str | None = None
    lora_name: str | None = None
    extra_keys: list[list[Any] | None] | None = None
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None
    kv_cache_spec_sliding_window: int | None = None
    locality: str | None = None
    ownership: str | None = None
    session_id: str | None = None
    cache_salt: str | None = None


class _Removed(msgspec.Struct, tag="BlockRemoved", gc=False):
    block_hashes: list[int | bytes]
    medium: str | None = None
    group_idx: int | None = None
    locality: str | None = None
    ownership: str | None = None


class _Cleared(msgspec.Struct, tag="AllBlocksCleared"):
    pass


class _StoredArray(_Stored, tag="BlockStored", array_like=True):
    pass


class _RemovedArray(_Removed, tag="BlockRemoved", array_like=True):
    pass


class _ClearedArray(_Cleared, tag="AllBlocksCleared", array_like=True):
    pass


_Event = _Stored | _Removed | _Cleared


class _Batch(msgspec.Struct, array_like=True):
    ts: float
    events: list[_Event]


class _BatchOfArrays(msgspec.Struct, array_like=True):
    ts: float
    events: list[_StoredArray | _RemovedArray | _ClearedArray]


_maps = msgspec.msgpack.Decoder(_Batch)
_arrays = msgspec.msgpack.Decoder(_BatchOfArrays)


class Decoder:
    """Decodes the batches of one engine's life. It learns which group of blocks is the main one, and skips
    the others."""

    def __init__(self) -> None:
        self._main: int | None = None

    def decode(self, payload: bytes) -> Iterator[ResidencyEvent]:
        """Yield what a batch tells; `FeedLost` where it is of a form that we don't know."""
        try:
            events = _events(payload)
        except UNREADABLE as error:
            yield FeedLost(f"a KV event of a form we don't know: {error or type(error).__name__}")
            return
        for event in events:
            match event:
                case _Cleared():
                    yield Cleared()
                case _Stored() if self._is_main(event.group_idx, event.kv_cache_spec_kind):
                    yield _stored(event)
                case _Removed() if self._is_main(event.group_idx, None):
                    yield Removed(_hashes(event.block_hashes), _tier(event.medium))

    def _is_main(self, group: int | None, kind: str | None) -> bool:
        if group is None:
            return True
        if self._main is None and kind in FULL_ATTENTION:
            self._main = group
        return group == self._main


def _events(payload: bytes) -> list[_Event]:
    try:
        return _maps.decode(payload).events
    except msgspec.ValidationError:
        return list(_arrays.decode(payload).events)


def _stored(event: _Stored) -> Stored:
    return Stored(
        hashes=_hashes(event.block_hashes),
        parent=event.parent_block_hash,
        token_ids=tuple(event.token_ids),
        block_size=event.block_size,
        tier=_tier(event.medium),
        agent=event.session_id,
        lora_name=event.lora_name,
        cache_salt=_salt(event),
    )


def _salt(event: _Stored) -> str | None:
    """SGLang tells it; vLLM has it among the root block's extra keys: the LoRA's name, pairs for images and the like,
    the salt, digests (bytes)."""
    if event.cache_salt is not None:
        return event.cache_salt
    if event.parent_block_hash is not None or not event.extra_keys:
        return None
    keys = list(event.extra_keys[0] or ())
    if event.lora_name is not None and keys[:1] == [event.lora_name]:
        del keys[0]
    return next((key for key in keys if isinstance(key, str)), None)


def _hashes(hashes: list[int | bytes]) -> tuple[BlockHash, ...]:
    return tuple(hashes)


def _tier(medium: str | None) -> Tier:
    """Whatever is neither device, host nor storage is somebody else's memory."""
    return Tier.DEVICE if medium is None else TIERS.get(medium.upper(), Tier.REMOTE)
