"""Asks our plug-in inside a vLLM server, where it is loaded (`scalesim_adapters.vllm.plugin.endpoints`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from scalesim_adapters.base import LoraItem, LoraPlaces, ProtocolMismatch, Tier, Unsupported
from scalesim_adapters.http import Http

RESIDENCY = "/v1/scalesim/residency"
LOAD = "/v1/scalesim/loras/load"
FREE = "/v1/scalesim/loras/free"
EVICT = "/v1/scalesim/evict"
SWAP = "/v1/scalesim/models/swap"


class LoraState(msgspec.Struct, frozen=True):
    """The engine's places for LoRAs and the names in them, least recently used first."""

    slots: int
    host_places: int
    device: tuple[str, ...]
    host: tuple[str, ...]
    pinned: tuple[str, ...]
    in_use: tuple[str, ...]

    def places(self) -> LoraPlaces:
        """Return them in the contract's words."""
        return LoraPlaces(self.device, self.host, frozenset((*self.pinned, *self.in_use)))


class PluginState(msgspec.Struct, frozen=True):
    """Where everything is inside the engine. `model` is the folder of its weights; `ranks` tells whether
    our scheduler evicts; `requests` run or wait now."""

    model: str | None
    asleep: bool
    sleep_frees: bool
    requests: int
    loras: LoraState | None
    ranks: bool
    host_tier: bool


class PluginRoutes:
    """Calls of the plug-in's routes. Raises the contract's errors."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def state(self, deadline: float) -> PluginState | None:
        """Return where everything is; None where the plug-in isn't loaded."""
        try:
            answer = await self._http.json("GET", RESIDENCY, deadline=deadline)
        except Unsupported:
            return None
        try:
            return msgspec.convert(answer, PluginState)
        except msgspec.ValidationError as error:
            raise ProtocolMismatch(f"{RESIDENCY}: {error}") from error

    async def load_lora(self, item: LoraItem, tier: Tier, deadline: float) -> None:
        """Bring a LoRA to the device or to host memory, and register its name where it isn't."""
        body = {"lora_name": item.name, "lora_path": str(item.path), "tier": tier.value}
        await self._post(LOAD, body, deadline)

    async def free_lora(self, name: str, to: Tier, deadline: float) -> None:
        """Take a LoRA out of its slot, or out of memory."""
        await self._post(FREE, {"lora_name": name, "to": to.value}, deadline)

    async def evict(self, agent: str, deadline: float) -> None:
        """Drop the idle blocks that only this agent uses."""
        await self._post(EVICT, {"agent": agent}, deadline)

    async def swap(self, path: Path, deadline: float) -> None:
        """Load the weights in a folder in place of those that are loaded."""
        await self._post(SWAP, {"path": str(path)}, deadline)

    async def _post(self, path: str, body: dict[str, Any], deadline: float) -> None:
        await self._http.send("POST", path, body, deadline=deadline)
