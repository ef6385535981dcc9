"""Inside an SGLang server: evicts by due, and tells which LoRAs have a slot. Changes no file of the engine.

Installed beside SGLang, it is found by the entry point group `sglang.srt.plugins`, and does nothing unless the
environment says where dues are broadcast: `SCALESIM_DUES=tcp://127.0.0.1:5601`. `SCALESIM_SILENCE_SECONDS` (2) without
a word from there, and the server evicts as it would alone. Eviction by due needs `--enable-session-radix-cache`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from time import monotonic
from typing import Any

from scalesim_adapters.dues import SILENCE_SECONDS, DueListener, DueTable
from scalesim_adapters.sglang.ranking import Ranking

ENDPOINT = "SCALESIM_DUES"
SILENCE = "SCALESIM_SILENCE_SECONDS"
KNOWN_VERSIONS = ("0.5.23",)
COMPONENT = "sglang.srt.mem_cache.unified_cache.components.full.FullComponent"
STATE = "sglang.srt.managers.scheduler_components.internal_state.SchedulerInternalStateController"

log = logging.getLogger("sglang.scalesim")


def register() -> None:
    """Hook into the server, where the environment asks for it and the server's version is known."""
    endpoint = os.environ.get(ENDPOINT)
    if not endpoint:
        return
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType
    from sglang.version import __version__

    if __version__ not in KNOWN_VERSIONS:
        log.warning("SGLang %s is not known from inside: it evicts as it would alone", __version__)
        return
    hooks = Hooks(endpoint, float(os.environ.get(SILENCE, SILENCE_SECONDS)))
    for target, hook, kind in (
        (f"{COMPONENT}.__init__", hooks.made, HookType.AFTER),
        (f"{COMPONENT}.register_session_leaf", hooks.registered, HookType.AFTER),
        (f"{COMPONENT}.release_session", hooks.released, HookType.AFTER),
        (f"{COMPONENT}.discard_deleted_session_leaf", hooks.deleted, HookType.AROUND),
        (f"{STATE}.get_internal_state", hooks.asked, HookType.AFTER),
    ):
        HookRegistry.register(target, hook, kind)


class Hooks:
    """What is called from inside the server. Everything but its making happens on the scheduler's thread."""

    def __init__(self, endpoint: str, silence: float) -> None:
        self._endpoint = endpoint
        self._silence = silence
        self._followed = False
        self._table: DueTable | None = None
        self._ranking: Ranking[Any] | None = None

    def made(self, _: None, component: Any, cache: Any, *args: Any) -> None:
        """The scheduler has made its cache of full attention: rank its evictions."""
        if not cache.enable_session_radix_cache:
            log.warning("without --enable-session-radix-cache SGLang evicts as it would alone")
            return
        try:
            table = DueListener(self._endpoint, self._silence).table
        except ValueError as error:
            log.warning("%s: SGLang evicts as it would alone: %s", ENDPOINT, error)
            return
        ranking: Ranking[Any] = Ranking(table, lambda node: sessions(component, node))
        own: Callable[[Any], Any] = component.session_ref_eviction_strategy

        def rank(node: Any) -> Any:
            return ranking.key(node) if self._follows() else own(node)

        component.session_ref_eviction_strategy = rank
        self._table, self._ranking = table, ranking
        log.info("eviction by due, once dues are heard at %s", self._endpoint)

    def registered(self, _: None, component: Any, session: str, leaf: Any) -> None:
        """A request of a session has ended, and its prompt at a leaf."""
        if self._ranking is not None and leaf is not None and leaf is not component.tree_core.root_node:
            self._ranking.used(session, leaf)

    def released(self, count: int, component: Any, session: str) -> int:
        """A session was closed."""
        if self._ranking is not None:
            self._ranking.closed(session)
        return count

    def deleted(self, original: Callable[..., None], component: Any, node: Any) -> None:
        """A node leaves the tree: the sessions that ended there end above it."""
        ending = [] if self._ranking is None else self._ranking.ending_at(node)
        original(component, node)
        if self._ranking is not None:
            self._ranking.shortened(ending, component._find_reusable_session_leaf(node.parent))

    def asked(self, answer: Any, controller: Any, *args: Any) -> Any:
        """The server tells of its state: add where its LoRAs are."""
        answer.internal_state["scalesim"] = {
            "following": self._follows(),
            **lora_places(controller.scheduler),
        }
        return answer

    def _follows(self) -> bool:
        follows = self._table is not None and not self._table.stale(monotonic())
        if follows != self._followed:
            self._followed = follows
            log.info("evicting by due" if follows else "no dues are heard: evicting as SGLang does")
        return follows


def sessions(component: Any, node: Any) -> Iterable[str]:
    """Return the sessions that SGLang notes at a node."""
    return node.component_data[component.component_type].session_ids or ()


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
