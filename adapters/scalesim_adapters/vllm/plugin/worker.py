"""What the plug-in adds to vLLM's workers: where each LoRA is, and moving one without touching another.

For `--worker-extension-cls scalesim_adapters.vllm.plugin.worker.Extension`. Workers carry out calls one at a time,
between two steps. A refusal is a pair of HTTP status and reason, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from vllm.lora.request import LoRARequest

Refusal = tuple[int, str]
BUSY, FULL = 409, 503


class Extension:
    """Methods for `collective_rpc`; LoRAs go by vLLM's own numbers, least recently used first."""

    model_runner: Any
    vllm_config: Any

    def scalesim_state(self) -> dict[str, Any]:
        """Return the folder of the model's weights, and the LoRAs in slots, in host places, and pinned."""
        model = self.vllm_config.model_config.model
        places = _places(self)
        if places is None:
            return {"model": model, "loras": None}
        return {
            "model": model,
            "loras": {
                "slots": places.lora_slots,
                "host_places": places.capacity,
                "device": list(places._active_adapters.order),
                "host": list(places._registered_adapters.order),
                "pinned": sorted(_pinned(places)),
            },
        }

    def scalesim_load_lora(
        self, number: int, name: str, path: str, is_3d: bool, slot: bool, keep: Collection[int]
    ) -> Refusal | None:
        """Bring a LoRA into host memory, and into a slot where asked; what is there becomes the most recent. `is_3d` is
        vLLM's `is_3d_lora_weight`.

        It takes the place of the least recently used that is neither pinned nor in `keep`; where it takes no slot,
        rather of one that is in none either.
        """
        places = _places(self)
        if places is None:
            return 501, "LoRA is not enabled"
        host, slots = places._registered_adapters, places._active_adapters
        fixed = _pinned(places) | set(keep)
        leaves_slot = None
        if slot and number not in slots and len(slots) >= places.lora_slots:
            leaves_slot = _oldest(slots.order, fixed)
            if leaves_slot is None:
                return FULL, f"all {places.lora_slots} slots have LoRAs that are pinned or in use"
        if number in host:
            host.touch(number)
        else:
            leaves_host = None
            if len(host) >= places.capacity:
                leaves_host = None if slot else _oldest(host.order, fixed | set(slots.order))
                leaves_host = _oldest(host.order, fixed) if leaves_host is None else leaves_host
                if leaves_host is None:
                    return FULL, f"all {places.capacity} host places have LoRAs that must stay"
            loaded = self.model_runner.lora_manager._load_adapter(
                LoRARequest(name, number, path, is_3d_lora_weight=is_3d)
            )
            if leaves_host is not None:
                places.remove_adapter(leaves_host)
            places.add_adapter(loaded)
        if slot:
            # What left its host place has left its slot too.
            if leaves_slot is not None and len(slots) >= places.lora_slots:
                places.deactivate_adapter(leaves_slot)
            places.activate_adapter(number)
        return None

    def scalesim_free_lora(self, number: int, keep_host: bool) -> Refusal | None:
        """Free a LoRA's slot, and unless `keep_host` its host place."""
        places = _places(self)
        if places is None:
            return 501, "LoRA is not enabled"
        if number in _pinned(places):
            return BUSY, "the LoRA is pinned"
        if keep_host:
            places.deactivate_adapter(number)
        else:
            places.remove_adapter(number)
        return None


def _places(worker: Any) -> Any:
    """Return vLLM's `LRUCacheLoRAModelManager` (vllm/lora/model_manager.py); None where LoRA is off."""
    manager = getattr(worker.model_runner, "lora_manager", None)
    return None if manager is None else manager._adapter_manager


def _pinned(places: Any) -> set[int]:
    return set(places._active_adapters.pinned_items) | set(places._registered_adapters.pinned_items)


def _oldest(order: Iterable[int], fixed: Collection[int]) -> int | None:
    return next((number for number in order if number not in fixed), None)
