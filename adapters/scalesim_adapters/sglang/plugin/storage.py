"""A storage for SGLang's hierarchical cache that lies in shared memory and outlives the server:
`--enable-hierarchical-cache --hicache-storage-backend dynamic --hicache-storage-backend-extra-config
'{"backend_name": "scalesim", "module_path": "scalesim_adapters.sglang.plugin.storage", "class_name": "HostStorage",
"segment": "/dev/shm/storage", "bytes": 1073741824}'`.

SGLang stores each page as it is written to the host, under a hash of all tokens up to its end, of the request's
`extra_key` with its LoRA's id, and of its `cache_salt`; so a page is never another LoRA's or another salt's. Whose a
page is SGLang's interface doesn't tell: the plug-in does, which sees what comes into the cache for which session.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import msgspec
import torch
from sglang.srt.mem_cache.hicache_storage import HiCacheStorage, PoolName, PoolTransferResult
from sglang.srt.runtime_context import get_context

from scalesim_adapters.dues import DueTable
from scalesim_adapters.hostbuf.segment import Segment
from scalesim_adapters.hostbuf.slots import Slots
from scalesim_adapters.sglang.plugin.identity import kv_identity
from scalesim_adapters.sglang.plugin.stored import StoredPages

# Nobody beside the scheduler's process reads the slots.
HOLDER = "sglang"
NO_STORAGE = "no storage, the engine goes on without it"

log = logging.getLogger("sglang.scalesim")


class StorageOptions(msgspec.Struct, frozen=True):
    """What the extra config says: the segment's file, and its size in bytes."""

    segment: str
    bytes: Annotated[int, msgspec.Meta(gt=0)]


class PageMemory:
    """A segment whose slots hold a page each, and which page that is. Raises what `Segment` raises, and `ValueError`
    where not one page fits."""

    def __init__(self, options: StorageOptions, pool: Any, table: DueTable) -> None:
        self._page_bytes = pool.get_dummy_flat_data_page().nbytes
        self._segment = Segment(Path(options.segment), options.bytes)
        try:
            identity = kv_identity(get_context().resolved_server_args_dict(), pool)
            self.slots = Slots(self._segment.buffer, self._page_bytes, identity, HOLDER)
            if not self.slots.count:
                raise ValueError(f"{options.bytes:,} bytes are too few for one page of {self._page_bytes:,}")
        except ValueError:
            self._segment.close()
            raise
        self.pages = StoredPages(self.slots.count, self.slots.keys(), table)
        self._bytes = torch.frombuffer(self._segment.buffer, dtype=torch.uint8)

    def read(self, slot: int, page: Any) -> None:
        """Copy what a slot holds into a page: a tensor of one dimension."""
        page.view(torch.uint8).copy_(self._at(slot))

    def write(self, slot: int, key: bytes, page: Any) -> None:
        """Copy a page into a slot, which holds it whole or is empty at any moment."""
        self.slots.withdraw(slot)
        self._at(slot).copy_(page.view(torch.uint8))
        self.slots.publish(slot, key)

    def discard(self, *, keep_identity: bool) -> None:
        """Empty all slots. Without `keep_identity` no later process uses what they come to hold."""
        self.slots.discard(keep_identity=keep_identity)
        self.pages.clear()

    def close(self) -> None:
        """Let go of the segment; its content stays."""
        del self._bytes
        self._segment.close()

    def _at(self, slot: int) -> Any:
        start = self.slots.data_offset + slot * self.slots.stride
        return self._bytes[start : start + self._page_bytes]


class HostStorage(HiCacheStorage):
    """The storage as SGLang calls it. Where there can be none it finds nothing and takes in nothing, and the server
    goes on without it."""

    def __init__(self, storage_config: Any, *args: Any) -> None:
        self._config = storage_config
        self._lock = threading.Lock()
        self._table: DueTable | None = None
        self._memory: PageMemory | None = None
        self._closed_down = False
        self._void = False

    def held(self) -> int:
        """Return how many pages are held."""
        with self._lock:
            return 0 if self._memory is None else len(self._memory.pages)

    # What the plug-in tells

    def follow(self, table: DueTable | None) -> None:
        """Rank evictions by this table, or by recency where there is none."""
        self._table = DueTable() if table is None else table

    def used(self, session: str, request: str, keys: Sequence[str]) -> None:
        """A request of the session has a prompt of these pages; said again, it has become longer."""
        with self._lock:
            if self._memory is not None:
                self._memory.pages.used(session, request, [_binary(key) for key in keys])

    def close_down(self) -> None:
        """The weights change: drop all that is held, and neither find nor take in anything."""
        self.void()
        self._closed_down = True
        log.info("the weights change: the storage is closed until the device has dropped its cache")

    def void(self) -> None:
        """The weights aren't, or needn't be, those that the server's arguments name: no later process uses what is
        held from now on."""
        with self._lock:
            self._void = True
            if self._memory is not None:
                self._memory.discard(keep_identity=False)

    def open_up(self) -> None:
        """Nothing computed under the old weights is left in the server."""
        self._closed_down = False

    # What SGLang calls

    def register_mem_pool_host(self, mem_pool_host: Any) -> None:
        """Open the segment for pages of this pool."""
        super().register_mem_pool_host(mem_pool_host)
        try:
            self._memory = self._opened(mem_pool_host)
        except (OSError, ValueError, NotImplementedError) as error:
            log.error("%s: %s", NO_STORAGE, error)

    def register_mem_host_pool_v2(self, host_pool: Any, host_pool_name: Any) -> None:
        """Another kind of pages belongs to the cache: without them what is stored here is of no use."""
        if host_pool_name != PoolName.KV and self._memory is not None:
            log.error("%s: the model has more than plain full attention", NO_STORAGE)
            self.close()

    def exists(self, key: str) -> bool:
        """Whether the page is held."""
        return self.batch_exists([key]) == 1

    def batch_exists(self, keys: list[str], extra_info: Any = None) -> int:
        """Return how many of the pages are held, up to the first that isn't."""
        with self._lock:
            memory = self._open_memory()
            held = [memory is not None and memory.pages.slot(_binary(key)) is not None for key in keys]
        return [*held, False].index(False)

    def get(self, key: str, target_location: Any = None, target_sizes: Any = None) -> Any:
        """Return the page, in `target_location`; None where it isn't held."""
        return self.batch_get([key], [target_location])[0]

    def batch_get(self, keys: list[str], target_locations: Any = None, target_sizes: Any = None) -> list[Any]:
        """Return each page, in its target; None where it isn't held."""
        found = [
            target if self._read(_binary(key), target) else None
            for key, target in zip(keys, target_locations, strict=True)
        ]
        self._touch(keys)
        return found

    def set(self, key: str, value: Any = None, target_location: Any = None, target_sizes: Any = None) -> bool:
        """Take in the page, where there is room or what it displaces is needed later."""
        return self.batch_set([key], [value])

    def batch_set(
        self, keys: list[str], values: Any = None, target_locations: Any = None, target_sizes: Any = None
    ) -> bool:
        """Take in pages, where there is room or what they displace is needed later."""
        # A prompt's head is worth more than its tail, without which it counts: the last to come displaces the others.
        for key, value in reversed(list(zip(keys, values, strict=True))):
            self._write(_binary(key), value)
        self._touch(keys)
        return True

    def batch_exists_v2(self, keys: Any, pool_transfers: Any = None, extra_info: Any = None) -> Any:
        """Find nothing: there is no storage for other kinds of pages."""
        return PoolTransferResult.empty()

    def batch_get_v2(self, transfers: Any, extra_info: Any = None) -> dict[str, list[bool]]:
        """Return nothing."""
        return {transfer.name: [False] * len(transfer.keys or ()) for transfer in transfers}

    def batch_set_v2(self, transfers: Any, extra_info: Any = None) -> dict[str, list[bool]]:
        """Take in nothing."""
        return {transfer.name: [True] * len(transfer.keys or ()) for transfer in transfers}

    def clear(self) -> None:
        """Drop all that is held."""
        with self._lock:
            if self._memory is not None:
                self._memory.discard(keep_identity=not self._void)

    def close(self) -> None:
        """Let go of the segment; its content stays."""
        with self._lock:
            memory, self._memory = self._memory, None
            if memory is not None:
                memory.close()

    def _opened(self, pool: Any) -> PageMemory:
        config = self._config
        if self._table is None:
            raise ValueError(
                "the plug-in is off: set SCALESIM_DUES, with an SGLang that it knows from inside"
            )
        if config.tp_size * config.pp_size * config.attn_cp_size * config.dcp_size != 1 or config.dp_rank:
            raise ValueError("the engine has several workers")
        options = msgspec.convert(config.extra_config, StorageOptions)
        memory = PageMemory(options, pool, self._table)
        if self._void:
            memory.discard(keep_identity=False)
        kept = f"{len(memory.pages)} kept" if memory.slots.kept else "none kept"
        log.info("storage in %s: %d pages, %s", options.segment, memory.slots.count, kept)
        return memory

    # One page at a time: the scheduler's thread waits for the lock

    def _read(self, key: bytes, page: Any) -> bool:
        with self._lock:
            memory = self._open_memory()
            slot = None if memory is None else memory.pages.slot(key)
            if memory is None or slot is None:
                return False
            memory.read(slot, page)
            return True

    def _write(self, key: bytes, page: Any) -> None:
        with self._lock:
            memory = self._open_memory()
            if memory is None or memory.pages.slot(key) is not None:
                return
            slot = memory.pages.room(key, monotonic())
            if slot is not None:
                memory.write(slot, key, page)

    def _touch(self, keys: Sequence[str]) -> None:
        with self._lock:
            memory = self._open_memory()
            if memory is not None:
                memory.pages.touch([_binary(key) for key in keys])

    def _open_memory(self) -> PageMemory | None:
        return None if self._closed_down else self._memory


def _binary(key: str) -> bytes:
    return bytes.fromhex(key)
