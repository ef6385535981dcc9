"""LoRAs of one vLLM server: by its stock routes, which tell nothing of places, or by our plug-in, which does."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from time import monotonic

from scalesim_adapters.base import (
    CapacityExceeded,
    EngineUnavailable,
    LoraItem,
    NotFound,
    Outcome,
    Rejected,
    Tier,
    Unsupported,
)
from scalesim_adapters.http import Http
from scalesim_adapters.openai import routes as openai
from scalesim_adapters.openai.routes import ASK_SECONDS
from scalesim_adapters.vllm.onetoken import ANY_TOKEN, one_token
from scalesim_adapters.vllm.routes import PluginRoutes

LOAD_LORA = "/v1/load_lora_adapter"
UNLOAD_LORA = "/v1/unload_lora_adapter"


class Loras:
    """Loads, evicts and releases; `exact` where the plug-in tells places and moves single LoRAs."""

    def __init__(self, http: Http, routes: PluginRoutes) -> None:
        self.exact = False
        self._http = http
        self._routes = routes
        self._lock = asyncio.Lock()

    async def load(self, item: LoraItem, tier: Tier, deadline: float) -> Outcome:
        """Bring a LoRA to a tier; by the stock routes only to the device, and by a request where it has a name."""
        openai.check_files(item)
        async with self._lock:
            if not self.exact and await self._is_registered(item):
                return Outcome((await one_token(self._http, item.name, [ANY_TOKEN], deadline)).seconds)
            started = monotonic()
            try:
                await self._put(item, tier, deadline)
            except EngineUnavailable as error:
                # 500 is also what a LoRA that the engine can't take is answered with.
                if await self._http.status("/health", deadline=ASK_SECONDS) == 200:
                    raise Rejected(str(error)) from error
                raise
            return Outcome(monotonic() - started)

    async def evict(self, item: LoraItem, to: Tier, deadline: float) -> Outcome:
        """Free a LoRA's slot, or its host place too. A LoRA without a name is in no place that can be told."""
        if not self.exact:
            raise Unsupported("vLLM's stock routes let go of a LoRA's name, never of its memory")
        if to not in (Tier.HOST, Tier.STORAGE):
            raise Unsupported(f"vLLM moves LoRAs to host memory and storage, not to {to}")
        started = monotonic()
        async with self._lock:
            with suppress(NotFound):
                await self._routes.free_lora(item.name, to, deadline)
        return Outcome(monotonic() - started)

    async def release(self, item: LoraItem, deadline: float) -> Outcome:
        """Make the server forget a LoRA's name. Its weights go at once where the plug-in can tell that nobody uses
        them, else when they are the oldest."""
        started = monotonic()
        async with self._lock:
            if self.exact:
                with suppress(NotFound, Rejected):
                    await self._routes.free_lora(item.name, Tier.STORAGE, deadline)
            with suppress(NotFound):
                await self._http.send("POST", UNLOAD_LORA, {"lora_name": item.name}, deadline=deadline)
        return Outcome(monotonic() - started)

    async def check_slot(self, name: str) -> None:
        """Refuse a request for a LoRA that can't get a slot, as far as is told: vLLM would die of it where all are
        pinned."""
        state = await self._routes.state(ASK_SECONDS) if self.exact else None
        if state is not None and state.loras is not None and name not in state.loras.device:
            pinned = set(state.loras.pinned) & set(state.loras.device)
            if len(pinned) >= state.loras.slots:
                raise CapacityExceeded(f"LoRA {name!r} gets no slot: all {len(pinned)} are pinned")

    async def _put(self, item: LoraItem, tier: Tier, deadline: float) -> None:
        if self.exact:
            await self._routes.load_lora(item, tier, deadline)
            return
        try:
            body = {"lora_name": item.name, "lora_path": str(item.path)}
            await self._http.send("POST", LOAD_LORA, body, deadline=deadline)
        except Rejected:
            # Somebody else may have loaded it meanwhile.
            if not await self._is_registered(item):
                raise

    async def _is_registered(self, item: LoraItem) -> bool:
        return openai.registered(item, openai.loras(await openai.model_cards(self._http)))
