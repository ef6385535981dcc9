"""The engines that are compared, each with the same KV pool and, where it has a tier, the same bytes for it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

from bench.demo.lab import POOL_TOKENS
from bench.rig.process import MODELS, ROOT
from bench.rig.vllm import PLUGIN_ENVIRONMENT, VllmServer, sidecar_flags, thread_binding, tier_flags

Kind = Literal["alone", "lru", "due-device", "due", "due-lru"]
KINDS: Final[tuple[Kind, ...]] = ("alone", "lru", "due-device", "due", "due-lru")
TITLES: Final[dict[Kind, str]] = {
    "alone": "engine alone",
    "lru": "engine + vLLM's LRU tier",
    "due-device": "eviction by due, no tier",
    "due": "eviction by due + our tier",
    "due-lru": "eviction by due + vLLM's LRU tier",
}
BLOCK_TOKENS: Final = 32
TOKEN_BYTES: Final = {"mid": 12 * 1024, "tiny": 2 * 1024}  # of each model's KV
BLOCK_BYTES: Final = BLOCK_TOKENS * TOKEN_BYTES["mid"]
SCHEDULER: Final = "scalesim_adapters.vllm.plugin.scheduler.DueScheduler"


@contextmanager
def engine(
    kind: Kind, folder: Path, tier_blocks: int, dues: str, pool_tokens: int = POOL_TOKENS
) -> Iterator[VllmServer]:
    """Run an engine of this kind; `dues` is where dues will be broadcast."""
    with launched(kind, folder, tier_blocks, dues, pool_tokens) as server:
        server.wait_ready()
        yield server


@contextmanager
def launched(
    kind: Kind, folder: Path, tier_blocks: int, dues: str, pool_tokens: int, model: str = "mid", **env: str
) -> Iterator[VllmServer]:
    """Start an engine of this kind, with `env` in its environment, without waiting until it is ready."""
    segments = Path(tempfile.mkdtemp(prefix="scalesim-bench-", dir="/dev/shm"))
    size = tier_blocks * (BLOCK_TOKENS * TOKEN_BYTES[model] + 64) + (1 << 14)
    flags = sidecar_flags(folder, pool_tokens) + _kind_flags(kind, segments / "tier", size, dues)
    environment = {"PYTHONPATH": f"{PLUGIN_ENVIRONMENT['PYTHONPATH']}:{ROOT}", **thread_binding(), **env}
    server = VllmServer(MODELS / model, flags, run=folder, env=environment)
    try:
        server.launch()
        with server:
            yield server
    finally:
        shutil.rmtree(segments)


def _kind_flags(kind: Kind, segment: Path, size: int, dues: str) -> list[str]:
    flags = []
    if kind.startswith("due"):
        flags += ["--scheduler-cls", SCHEDULER]
        flags += ["--additional-config", json.dumps({"scalesim": {"dues": dues}})]
    if kind == "due":
        flags += tier_flags(segment, size)
    if kind.endswith("lru"):
        tier = {"spec_name": "LruSpec", "spec_module_path": "bench.host_tier.lru"}
        extra = {**tier, "segment": str(segment), "bytes": size}
        config = {
            "kv_connector": "OffloadingConnector",
            "kv_role": "kv_both",
            "kv_connector_extra_config": extra,
        }
        flags += ["--kv-transfer-config", json.dumps(config)]
    return flags
