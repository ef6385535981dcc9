"""What the plug-in adds to vLLM's engine process: one method that is run between two steps, so that what it checks
still holds when it acts.

vLLM asks plug-ins whose endpoints need something of the engine to add it by an entry point of `vllm.general_plugins`
(vllm/plugins/endpoint_plugins/interface.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import vllm
from vllm import envs
from vllm.lora.model_manager import LRUCacheLoRAModelManager
from vllm.lora.worker_manager import WorkerLoRAManager
from vllm.v1.engine.core import EngineCore

from scalesim_adapters.vllm.plugin import versions
from scalesim_adapters.vllm.plugin.weights import swap_refusal
from scalesim_adapters.vllm.plugin.worker import BUSY, Extension

METHOD = "scalesim"
EXTENSION = f"{Extension.__module__}.{Extension.__qualname__}"
INTERNALS: dict[type, dict[str, tuple[str, ...]]] = {
    EngineCore: {
        "reset_prefix_cache": ("self", "reset_running_requests", "reset_connector"),
        "collective_rpc": ("self", "method", "timeout", "args", "kwargs"),
        "is_sleeping": ("self",),
    },
    WorkerLoRAManager: {"_load_adapter": ("self", "lora_request")},
    LRUCacheLoRAModelManager: {
        "add_adapter": ("self", "lora"),
        "activate_adapter": ("self", "lora_id"),
        "deactivate_adapter": ("self", "adapter_id"),
        "remove_adapter": ("self", "adapter_id"),
    },
}
ASLEEP = "the engine is asleep"
Answer = dict[str, Any]


def refusal() -> str | None:
    """Return why nothing is added to this engine; None where it is as we know it."""
    return versions.refusal(vllm.__version__, INTERNALS)


def register() -> None:
    """Add the method to this process's `EngineCore`, where `VLLM_PLUGINS` names us: without, vLLM serves no routes of
    plug-ins, and nobody would call it."""
    if envs.VLLM_PLUGINS and METHOD in envs.VLLM_PLUGINS and refusal() is None:
        setattr(EngineCore, METHOD, call)


def call(core: Any, what: str, arguments: Mapping[str, Any]) -> Answer:
    """Do one of `CALLS`. An answer with `refused`, a pair of HTTP status and reason, has changed nothing."""
    return CALLS[what](core, **arguments)


def _state(core: Any, prefixes: bool) -> Answer:
    """Where everything is. LoRAs by vLLM's numbers; `prefixes`, where asked for, are each agent's cached blocks."""
    worker = _rpc(core, "scalesim_state") if _extended(core) else {"model": None, "loras": None}
    loras = worker["loras"]
    return {
        "model": worker["model"],
        "asleep": core.is_sleeping(),
        "sleep_frees": bool(core.vllm_config.model_config.enable_sleep_mode),
        "requests": len(core.scheduler.requests),
        "loras": None if loras is None else loras | {"in_use": sorted(_loras_in_use(core))},
        "ranks": _ranks(core),
        "prefixes": core.scheduler.residency() if prefixes and _ranks(core) else None,
        "host_tier": core.vllm_config.kv_transfer_config is not None,
    }


def _load_lora(
    core: Any, number: int, name: str, path: str, is_3d: bool, slot: bool, keep: list[int]
) -> Answer:
    if not _extended(core):
        return _not_extended()
    if core.is_sleeping():
        return _refused((BUSY, ASLEEP))
    fixed = [*keep, *(_loras_in_use(core) - {number})]
    return _refused(_rpc(core, "scalesim_load_lora", number, name, path, is_3d, slot, fixed))


def _free_lora(core: Any, number: int, keep_host: bool) -> Answer:
    if not _extended(core):
        return _not_extended()
    if number in _loras_in_use(core):
        return _refused((BUSY, "a request uses the LoRA"))
    return _refused(_rpc(core, "scalesim_free_lora", number, keep_host))


def _evict_agent(core: Any, agent: str) -> Answer:
    if not _ranks(core):
        return _refused((501, "the engine was started without our scheduler"))
    return {"blocks": core.scheduler.evict_agent(agent)}


def _swap_model(core: Any, path: str) -> Answer:
    """Load other weights while nothing runs. The caches go first: what was computed under the old weights is gone
    before the new ones are there, and nothing can be computed in between."""
    if not _extended(core):
        return _not_extended()
    if core.scheduler.requests or core.batch_queue:
        return _refused((BUSY, "requests are running or waiting"))
    if core.is_sleeping():
        return _refused((BUSY, ASLEEP))
    if core.vllm_config.kv_transfer_config is not None:
        return _refused((400, "KV outside the engine belongs to the weights that it was started with"))
    before = _rpc(core, "scalesim_state")["model"]
    if Path(before) == Path(path):
        return {"model": before}
    reason = swap_refusal(Path(before), Path(path))
    if reason is not None:
        return _refused((400, reason))
    if not core.reset_prefix_cache(False, True):
        return _refused((BUSY, "cached blocks are still in use"))
    done = False
    try:
        core.collective_rpc("reload_weights", kwargs={"weights_path": path})
        done = True
    finally:
        if not done:
            core.collective_rpc("reload_weights", kwargs={"weights_path": before})
    return {"model": path}


CALLS: Mapping[str, Callable[..., Answer]] = {
    "state": _state,
    "load_lora": _load_lora,
    "free_lora": _free_lora,
    "evict_agent": _evict_agent,
    "swap_model": _swap_model,
}


def _rpc(core: Any, method: str, *arguments: Any) -> Any:
    """Call all workers and return what the first said: they hold the same."""
    return core.collective_rpc(method, args=arguments)[0]


def _loras_in_use(core: Any) -> set[int]:
    requests = core.scheduler.requests.values()
    return {request.lora_request.lora_int_id for request in requests if request.lora_request is not None}


def _extended(core: Any) -> bool:
    return bool(core.vllm_config.parallel_config.worker_extension_cls == EXTENSION)


def _not_extended() -> Answer:
    return _refused((501, f"the engine was started without --worker-extension-cls {EXTENSION}"))


def _ranks(core: Any) -> bool:
    return getattr(core.scheduler, "due_pool", None) is not None


def _refused(refusal: tuple[int, str] | None) -> Answer:
    return {} if refusal is None else {"refused": list(refusal)}
