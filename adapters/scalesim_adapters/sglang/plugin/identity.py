"""To what KV in a storage belongs: weights, LoRAs, arguments of the server, data type, layout and engine."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sglang.version import __version__

from scalesim_adapters.weightfiles import weights_digest

# Arguments that change nothing in what a prompt's KV is. All others count, known to matter or not.
NAMES = ("host", "port", "nccl_port", "dist_init_addr", "served_model_name", "api_key", "admin_api_key")
LOGS = ("log_level", "log_level_http", "log_requests", "log_requests_level", "watchdog_timeout")
REPORTS = ("enable_metrics", "enable_cache_report", "kv_events_config", "sleep_on_idle", "skip_server_warmup")
SIZES = ("max_total_tokens", "mem_fraction_static", "max_running_requests", "hicache_ratio", "hicache_size")
POLICIES = (
    *("random_seed", "radix_eviction_policy", "enable_session_radix_cache", "hicache_write_policy"),
    *("hicache_storage_prefetch_policy", "hicache_storage_backend_extra_config"),
)
NEUTRAL = frozenset((*NAMES, *LOGS, *REPORTS, *SIZES, *POLICIES))


def kv_identity(arguments: Mapping[str, Any], pool: Any) -> dict[str, str]:
    """Return the identity of what a server with these resolved arguments computes, as names and values to compare.
    `pool` is the host's, whose pages the storage holds.

    A LoRA that is loaded at run time has an id of its own each time, and one of `--lora-paths` has the same at every
    start: so what lies at those paths is a part.
    """
    told = {name: value for name, value in arguments.items() if name not in NEUTRAL}
    return {
        "weights": uuid.uuid4().hex
        if arguments["load_format"] == "dummy"
        else weights_digest(Path(arguments["model_path"])),
        "loras": _digest([weights_digest(Path(path)) for path in lora_paths(arguments)]),
        "arguments": _digest(told),
        "dtype": str(pool.dtype),
        "layout": f"{type(pool).__name__} {pool.layout} {pool.page_size}",
        "engine": f"sglang {__version__}",
    }


def lora_paths(arguments: Mapping[str, Any]) -> list[str]:
    """Return the folders of `--lora-paths`."""
    return [lora["lora_path"] for lora in arguments["lora_paths"] or ()]


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else repr(value)
