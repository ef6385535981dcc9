"""What is called from inside an SGLang server, and by which of its functions. Everything but the making of the hooks
happens on the scheduler's thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sglang.srt.constants import GPU_MEMORY_TYPE_WEIGHTS
from sglang.srt.runtime_context import get_context

from scalesim_adapters.dues import DueListener
from scalesim_adapters.sglang.plugin.eviction import Eviction
from scalesim_adapters.sglang.plugin.sleep import Sleep
from scalesim_adapters.sglang.plugin.storage import HostStorage

CACHE = "sglang.srt.mem_cache.unified_radix_cache.UnifiedRadixCache"
COMPONENT = "sglang.srt.mem_cache.unified_cache.components.full.FullComponent"
SCHEDULER = "sglang.srt.managers.scheduler.Scheduler"
STATE = "sglang.srt.managers.scheduler_components.internal_state.SchedulerInternalStateController"
WEIGHTS = "sglang.srt.managers.scheduler_components.weight_updater.SchedulerWeightUpdaterManager"
SOURCES = ("disk", "distributed", "ipc", "tensor")
BACKENDS = "sglang.srt.mem_cache.storage.backend_factory.StorageBackendFactory"


class Hooks:
    """The hooks of one process. `listen` hears the dues that are broadcast at `endpoint`."""

    def __init__(self, endpoint: str, listen: Callable[[], DueListener]) -> None:
        self.eviction = Eviction(endpoint, listen)
        self.sleep = Sleep()
        self._storage: HostStorage | None = None
        self._as_started = True
        self._in_session = False
        self._flushed = False

    def after(self) -> Mapping[str, Callable[..., Any]]:
        """Return what is called with the result of the engine's functions and their arguments, by function."""
        return {
            f"{COMPONENT}.__init__": self.eviction.made,
            f"{COMPONENT}.register_session_leaf": self.eviction.registered,
            f"{COMPONENT}.release_session": self.eviction.released,
            f"{COMPONENT}.reset_session_state": self.eviction.reset,
            f"{BACKENDS}.create_backend": self.created,
            f"{CACHE}.checkpoint_into_tree": self.cached,
            f"{STATE}.get_internal_state": self.asked,
            f"{SCHEDULER}._record_scheduler_state_for_paused_engine": self.sleep.idled,
        }

    def around(self) -> Mapping[str, Callable[..., Any]]:
        """Return what is called in place of the engine's functions, with the original and their arguments."""
        return {
            f"{COMPONENT}.discard_deleted_session_leaf": self.eviction.deleted,
            f"{SCHEDULER}.pause_generation": self.sleep.paused,
            f"{SCHEDULER}.continue_generation": self.sleep.continued,
            f"{WEIGHTS}.release_memory_occupation": self.released_memory,
            f"{WEIGHTS}.resume_memory_occupation": self.sleep.resume,
            **{f"{WEIGHTS}.update_weights_from_{source}": self.updated for source in SOURCES},
            f"{WEIGHTS}.begin_weight_update": self.began_update,
            f"{WEIGHTS}.end_weight_update": self.ended_update,
        }

    def created(self, backend: Any, *args: Any, **kwargs: Any) -> Any:
        """The scheduler has made the backend of its storage: where it is ours, it is told of dues and new weights. Made
        after requests were served, it can't tell whether the files are still those that were loaded."""
        if isinstance(backend, HostStorage):
            backend.follow(self.eviction.table)
            if not self._as_started:
                backend.void()
            self._storage = backend
        return backend

    def cached(self, _: None, cache: Any, request: Any, **kwargs: Any) -> None:
        """What a request has computed so far has come into the cache: these pages are its session's."""
        self._as_started = self._as_started and self._storage is not None
        if self._storage is not None and request.session_id:
            tree, node = cache.tree_core, request.last_node
            keys = tree.get_prefix_hash_values(node) + tree.get_hash_values(node)
            self._storage.used(request.session_id, request.rid, keys)

    def updated(self, original: Callable[..., Any], manager: Any, request: Any) -> Any:
        """Other weights take the place of those in use: nothing is stored until the device has dropped its cache."""
        self._close_storage()
        answer = original(manager, request)
        self._flushed = bool(answer.success and request.flush_cache)
        if not self._in_session:
            self._open_storage()
        return answer

    def began_update(self, original: Callable[..., Any], manager: Any, request: Any) -> Any:
        """Weights are about to be changed in place, by several calls."""
        self._close_storage()
        self._in_session, self._flushed = True, False
        return original(manager, request)

    def ended_update(self, original: Callable[..., Any], manager: Any, request: Any) -> Any:
        """The weights are complete; what the device has cached stays unless the last update dropped it."""
        self._close_storage()
        answer = original(manager, request)
        self._in_session = False
        self._open_storage()
        return answer

    def _close_storage(self) -> None:
        self._as_started = False
        if self._storage is not None:
            self._storage.close_down()

    def _open_storage(self) -> None:
        if self._storage is not None and self._flushed:
            self._storage.open_up()

    def released_memory(self, original: Callable[..., Any], manager: Any, request: Any) -> Any:
        """The model is put to sleep. Weights of which there is no copy aren't what they were when it wakes."""
        answer = self.sleep.release(original, manager, request)
        if self._storage is not None and GPU_MEMORY_TYPE_WEIGHTS in manager.offload_tags:
            arguments = get_context().resolved_server_args_dict()
            if arguments["enable_memory_saver"] and not arguments["enable_weights_cpu_backup"]:
                self._close_storage()
        return answer

    def asked(self, answer: Any, controller: Any, *args: Any) -> Any:
        """The server tells of its state: add what only we know."""
        answer.internal_state["scalesim"] = {
            "following": self.eviction.follows(),
            "released": sorted(controller.scheduler.weight_updater.offload_tags),
            "stored": None if self._storage is None else self._storage.held(),
            **lora_places(controller.scheduler),
        }
        return answer


def lora_places(scheduler: Any) -> dict[str, list[str]]:
    """Return the names of LoRAs in slots, the next victim first, on the host, and in use now."""
    manager = scheduler.tp_worker.model_runner.lora_manager
    if manager is None:
        return {"lora_device": [], "lora_host": [], "lora_held": []}
    names = {uid: ref.lora_name for uid, ref in manager.lora_refs.items()}
    pool = manager.memory_pool
    order = getattr(pool.eviction_policy, "access_order", pool.uid_to_buffer_id)
    in_slots = [uid for uid in order if uid in pool.uid_to_buffer_id]
    running = {request.lora_id for request in scheduler.running_batch.reqs}
    return {
        "lora_device": [names[uid] for uid in in_slots if uid in names],
        "lora_host": list(names.values()),
        "lora_held": sorted(names[uid] for uid in running if uid in names),
    }
