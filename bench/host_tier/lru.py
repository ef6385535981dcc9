"""vLLM's own host tier on this machine's CPU, for comparison: its manager and its LRU policy, which store what is
computed, with our copies (vLLM's own are for GPUs). Runs inside the engine."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from vllm.v1.kv_offload.base import (
    CanonicalKVCaches,
    OffloadingManager,
    OffloadingMetricMetadata,
    OffloadingSpec,
    OffloadingWorker,
)
from vllm.v1.kv_offload.cpu.manager import CPUOffloadingManager
from vllm.v1.kv_offload.cpu.spec import CPUOffloadingSpec

from scalesim_adapters.hostbuf.slots import read_keys
from scalesim_adapters.vllm.plugin.hostcopy import HostMemory, HostWorker


class LruSpec(OffloadingSpec):
    """A tier of `bytes` bytes in the file `segment`."""

    @classmethod
    def build_metric_definitions(cls, extra_config: dict[str, Any]) -> dict[str, OffloadingMetricMetadata]:
        """Return the metrics of vLLM's manager."""
        definitions: dict[str, OffloadingMetricMetadata] = CPUOffloadingSpec.build_metric_definitions(
            extra_config
        )
        return definitions

    def get_manager(self) -> OffloadingManager:
        """Return vLLM's manager with its default policy, over the slots that the worker has opened."""
        count, _ = read_keys(Path(self.extra_config["segment"]), self.config.engine_id)
        return CPUOffloadingManager(count, "lru", enable_events=self.kv_events_config.enable_kv_cache_events)

    def get_worker(self, kv_caches: CanonicalKVCaches) -> OffloadingWorker:
        """Return our worker over a segment that nobody uses later."""
        segment, size = Path(self.extra_config["segment"]), int(self.extra_config["bytes"])
        identity = {"run": uuid.uuid4().hex}
        return HostWorker(HostMemory(segment, size, kv_caches, identity, self.config.engine_id))
