"""The connector of the host tier. What hook does what is told in `offload`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Annotated, Any

import msgspec
from vllm.distributed.kv_transfer.kv_connector.v1.base import KVConnectorRole
from vllm.distributed.kv_transfer.kv_connector.v1.offloading_connector import OffloadingConnector
from vllm.logger import init_logger
from vllm.v1.kv_cache_interface import FullAttentionSpec
from vllm.v1.kv_offload.base import CanonicalKVCaches, OffloadingSpec, OffloadingWorker, make_offload_key

from scalesim_adapters import lorafiles
from scalesim_adapters.dues import DueListener, DueTable
from scalesim_adapters.hostbuf.segment import held
from scalesim_adapters.hostbuf.slots import read_keys
from scalesim_adapters.vllm.plugin.evictions import EvictionWatch
from scalesim_adapters.vllm.plugin.hostcopy import HostMemory, HostWorker, NoWorker
from scalesim_adapters.vllm.plugin.identity import kv_identity
from scalesim_adapters.vllm.plugin.manager import TierManager, TierMetadata
from scalesim_adapters.vllm.plugin.options import KEY, read_options
from scalesim_adapters.vllm.plugin.tier import Move, Tier

logger = init_logger("vllm.scalesim.tier")


class TierOptions(msgspec.Struct, frozen=True):
    """What `kv_connector_extra_config` says: the segment's file, and its size in bytes; without that the segment is
    as large as the daemon has made it."""

    segment: str
    bytes: Annotated[int, msgspec.Meta(gt=0)] | None = None

    def size(self) -> int:
        """Return the segment's size in bytes. Raises `ValueError` where nobody has said it."""
        path = Path(self.segment)
        if self.bytes is None and not path.is_file():
            raise ValueError(f"{path} isn't there: start the daemon that owns it first, or say its bytes")
        return self.bytes or path.stat().st_size


def read_tier_options(extra: Any) -> TierOptions:
    """Return the tier's options. Raises `ValueError`, naming what is wrong."""
    try:
        return msgspec.convert(extra, TierOptions)
    except msgspec.ValidationError as error:
        example = '{"segment": "/dev/shm/tier", "bytes": 1073741824}'
        raise ValueError(f"kv_connector_extra_config: {error}; for example {example}") from error


def _name_spec(vllm_config: Any) -> TierOptions:
    extra = vllm_config.kv_transfer_config.kv_connector_extra_config
    extra.update(spec_name=HostTierSpec.__name__, spec_module_path=__name__)
    return read_tier_options(extra)


def _unfit(vllm_config: Any, kv_cache_config: Any) -> str | None:
    """Return why an engine of this configuration can't have the tier, None where it can."""
    groups = kv_cache_config.kv_cache_groups
    if len(groups) != 1 or type(groups[0].kv_cache_spec) is not FullAttentionSpec:
        return "the model has more than plain full attention"
    if not vllm_config.cache_config.enable_prefix_caching:
        return "prefix caching is off"
    if vllm_config.speculative_config is not None:
        return "speculative decoding is on"
    if vllm_config.parallel_config.world_size_across_dp != 1:
        return "the engine has several workers"
    return None


class HostTierSpec(OffloadingSpec):
    """The tier's two ends, one in each process. `identity` tells to what KV belongs; it is set before the worker's end
    is asked for, where there can be a tier."""

    identity: Callable[[], dict[str, str]] | None = None

    def get_manager(self) -> TierManager:
        """Return the scheduler's end; the tier is given to it when the engine's parts are bound together."""
        return TierManager()

    def get_worker(self, kv_caches: CanonicalKVCaches) -> OffloadingWorker:
        """Return the worker's end, which holds the segment; where that can't be had, one that does nothing."""
        if self.identity is None:
            return NoWorker()
        options = read_tier_options(self.extra_config)
        try:
            identity, holder = self.identity(), self.config.engine_id
            memory = HostMemory(Path(options.segment), options.size(), kv_caches, identity, holder)
        except (OSError, ValueError, RuntimeError) as error:  # torch's are RuntimeErrors
            logger.error("no host tier, the engine goes on without it: %s", error)
            return NoWorker()
        kept = f"{len(memory.slots.keys())} kept" if memory.slots.kept else "none kept"
        logger.info("host tier in %s: %d blocks, %s", options.segment, memory.slots.count, kept)
        return HostWorker(memory)


class HostTierConnector(OffloadingConnector):
    """vLLM's offloading connector, with a tier that takes what the device evicts."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        options = _name_spec(vllm_config)
        super().__init__(vllm_config, role, kv_cache_config)
        self._why_off = _unfit(vllm_config, kv_cache_config)
        self._segment = Path(options.segment)
        self._engine_id = str(vllm_config.kv_transfer_config.engine_id)
        self._requests: dict[str, Any] = {}
        self._discard = False
        self._volatile = False
        self._tier: Tier | None = None
        self._watch: EvictionWatch | None = None
        self._listener: DueListener | None = None
        if self.connector_worker is not None and self._why_off is None:
            self.connector_worker.spec.identity = partial(kv_identity, vllm_config)

    @classmethod
    def build_prom_metrics(cls, vllm_config: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the metrics of offloading, in the server's process."""
        _name_spec(vllm_config)
        return super().build_prom_metrics(vllm_config, *args, **kwargs)

    def bind_gpu_block_pool(self, gpu_block_pool: Any) -> None:
        """Set the tier up over the device's pool, in the scheduler's process, after the worker has its segment."""
        if self._why_off is not None:
            logger.warning("no host tier, the engine goes on without it: %s", self._why_off)
            return
        try:
            count, keys = read_keys(self._segment, self._engine_id) if held(self._segment) else (0, {})
        except (OSError, ValueError) as error:
            logger.error("no host tier, the engine goes on without it: %s", error)
            return
        if count:
            watch = EvictionWatch(gpu_block_pool, self.reset_cache)
            self._tier = self.scheduler.manager.tier = Tier(count, keys, self._hear(), watch.on_device)
            self._watch = watch

    def on_new_request(self, request: Any) -> None:
        """A request has come: its prompt's blocks are its agent's."""
        super().on_new_request(request)
        lora = request.lora_request
        if lora is not None and not self._volatile and not lorafiles.tells_content(lora.lora_path):
            # Under that path may lie other weights when the next engine starts, with the same hashes.
            self._volatile = True
            logger.warning(
                "%s tells not what is in it: nothing in the host tier outlives the engine", lora.lora_path
            )
            self.reset_cache()
        self._requests[request.request_id] = request
        self._note_use(request)

    def request_finished(self, request: Any, block_ids: Any) -> Any:
        """A request has ended: what it has written is its agent's, too."""
        self._requests.pop(request.request_id, None)
        self._note_use(request)
        return super().request_finished(request, block_ids)

    def request_finished_all_groups(self, request: Any, block_ids: Any) -> Any:
        """The same, as vLLM asks connectors that know of cache groups."""
        return self.request_finished(request, block_ids)

    def build_connector_meta(self, scheduler_output: Any) -> Any:
        """Say what the worker does in this step: what vLLM's offloading wants, and the moves to the host."""
        plan = super().build_connector_meta(scheduler_output)
        moves = self._evicted(plan, scheduler_output.preempted_req_ids or ())
        discard, self._discard = self._discard, False
        return TierMetadata(plan.load_jobs, plan.store_jobs, plan.jobs_to_flush, moves, discard)

    def reset_cache(self) -> Any:
        """Empty the tier. The worker does so before its next step."""
        self._discard = True
        return super().reset_cache()

    def handle_preemptions(self, kv_connector_metadata: Any) -> None:
        """Do this step's moves, in the worker, before anything overwrites the device's blocks."""
        super().handle_preemptions(kv_connector_metadata)
        worker = self.connector_worker.worker
        if isinstance(worker, HostWorker):
            if kv_connector_metadata.discard:
                worker.discard()
            written, seconds = worker.move(kv_connector_metadata.moves)
            if written:
                self.connector_worker._connector_worker_meta.transfer_stats.store.record(written, seconds)

    def shutdown(self) -> None:
        """Stop listening, and what else the connector does at its end."""
        if self._listener is not None:
            self._listener.close()
        super().shutdown()

    def _hear(self) -> DueTable:
        config = self._vllm_config.additional_config
        if not isinstance(config, dict) or KEY not in config:
            logger.warning("the host tier follows recency: --additional-config names no broadcast of dues")
            return DueTable()
        options = read_options(config)
        self._listener = options.listener()
        return self._listener.table

    def _note_use(self, request: Any) -> None:
        if self._tier is not None and request.session_id:
            keys = [make_offload_key(block_hash, 0) for block_hash in request.block_hashes]
            self._tier.ranking.used(request.session_id, request.request_id, keys)

    def _evicted(self, plan: Any, preempted: Iterable[str]) -> list[Move]:
        if self._tier is None or self._watch is None:
            return []
        gone = self._watch.take()
        if not gone:
            return []
        # What a request was to compute in the step in which it was preempted has a hash and no content.
        requests = [self._requests[name] for name in preempted if name in self._requests]
        hollow = {make_offload_key(found, 0) for request in requests for found in request.block_hashes}
        arriving = {
            int(block): int(slot)
            for job in plan.load_jobs.values()
            for block, slot in zip(job.dst_spec.block_ids, job.src_spec.block_ids, strict=True)
        }
        moves = self._tier.evicted([found for found in gone if found[1] not in hollow], arriving, monotonic())
        self.scheduler.manager.moved(moves)
        return moves.moves
