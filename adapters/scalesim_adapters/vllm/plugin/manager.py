"""The tier as vLLM's offloading asks for it, in the scheduler's process, and what the worker is told of it."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from vllm.distributed.kv_transfer.kv_connector.v1.offloading.common import OffloadingConnectorMetadata
from vllm.v1.kv_offload.base import (
    LoadStoreSpec,
    LookupResult,
    Medium,
    OffloadingEvent,
    OffloadingManager,
    OffloadKey,
    PrepareStoreOutput,
    ReqContext,
    RequestOffloadingContext,
)
from vllm.v1.kv_offload.cpu.common import CPULoadStoreSpec
from vllm.v1.metrics.cache_hit_source import CacheHitSource

from scalesim_adapters.vllm.plugin.tier import Move, Moves, Tier


@dataclass
class TierMetadata(OffloadingConnectorMetadata):
    """What a step tells the worker: `moves` happen before anything else, after a discard of everything if `discard`."""

    moves: list[Move] = field(default_factory=list)
    discard: bool = False


class TierManager(OffloadingManager):
    """Answers from the tier. Nothing is stored when it is computed: `moved` says what the device's evictions move."""

    def __init__(self) -> None:
        self.tier: Tier | None = None
        self._events: list[OffloadingEvent] = []

    def lookup(self, key: OffloadKey, req_context: ReqContext) -> LookupResult:
        """Tell whether a block can be loaded; one on its way to the device had better be waited for."""
        if self.tier is None:
            return LookupResult.MISS
        if self.tier.leaves(key):
            return LookupResult.RETRY
        return LookupResult.HIT if self.tier.has(key) else LookupResult.MISS

    def get_load_source(self, key: OffloadKey, req_context: ReqContext) -> CacheHitSource:
        """Name the tier for metrics."""
        return CacheHitSource.HOST

    def prepare_load(self, keys: Collection[OffloadKey], req_context: ReqContext) -> LoadStoreSpec:
        """Keep the blocks where they are until `complete_load`, and return where that is."""
        return CPULoadStoreSpec([] if self.tier is None else self.tier.load(keys))

    def complete_load(self, keys: Collection[OffloadKey], req_context: ReqContext) -> None:
        """The device has the blocks now."""
        if self.tier is not None:
            self.tier.loaded(keys)

    def prepare_store(self, keys: Collection[OffloadKey], req_context: ReqContext) -> PrepareStoreOutput:
        """The device has computed these blocks: store none of them."""
        if self.tier is not None:
            self.tier.computed(keys)
        return PrepareStoreOutput([], CPULoadStoreSpec([]), [])

    def on_new_request(self, req_context: ReqContext) -> RequestOffloadingContext:
        """Offer what a request computes once, which is how `prepare_store` hears of it."""
        return RequestOffloadingContext()

    def moved(self, moves: Moves) -> None:
        """Announce what the tier has taken in and dropped."""
        if moves.dropped:
            self._announce(moves.dropped, removed=True)
        if moves.moves:
            self._announce([move.key for move in moves.moves], removed=False)

    def take_events(self) -> Iterable[OffloadingEvent]:
        """Return the announcements since the last call."""
        events, self._events = self._events, []
        return events

    def reset_cache(self) -> None:
        """Forget everything."""
        if self.tier is not None:
            self.tier.clear()

    def _announce(self, keys: Iterable[bytes], *, removed: bool) -> None:
        self._events.append(OffloadingEvent([OffloadKey(key) for key in keys], Medium.CPU, removed))
