"""The plug-in's routes on vLLM's API server, for `VLLM_PLUGINS=scalesim`. They lie under `/v1`, which the server's
API key guards.

No call that ends an engine (vLLM 0.32) gets through: each LoRA's files are looked for before the engine may have to
read them, a LoRA whose files are gone is never taken from memory, and nothing here pins or loads in place.
"""

from __future__ import annotations

import asyncio
import logging
from argparse import Namespace
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from pydantic import BaseModel
from vllm.lora.request import LoRARequest
from vllm.v1.engine.exceptions import EngineDeadError

from scalesim_adapters import lorafiles
from scalesim_adapters.vllm.plugin.engine import METHOD, refusal

# vLLM shows what its own loggers say.
log = logging.getLogger("vllm.scalesim.endpoints")
router = APIRouter(prefix="/v1/scalesim")


class LoadLora(BaseModel):
    """Bring a LoRA to a tier. A name that isn't known yet, or is known for what the path's LoRA was before it changed,
    is registered for that path."""

    lora_name: str
    lora_path: str
    tier: Literal["device", "host"]


class FreeLora(BaseModel):
    """Take a LoRA out of its slot (`host`), or out of memory (`storage`). Its name stays known."""

    lora_name: str
    to: Literal["host", "storage"]


class Evict(BaseModel):
    """Drop the cached blocks that only this agent uses and no request holds."""

    agent: str


class Swap(BaseModel):
    """Load the weights in a folder in place of those that are loaded."""

    path: str


class Control:
    """The server's names for LoRAs, joined with the engine's places for them."""

    def __init__(self, client: Any, models: Any) -> None:
        self._client = client
        self._models = models

    async def residency(self, *, prefixes: bool) -> dict[str, Any]:
        """Return where everything is, LoRAs by name; weights without a name are `#` and a number."""
        state = await self._ask("state", prefixes=prefixes)
        if state["loras"] is not None:
            names = {request.lora_int_id: name for name, request in self._models.lora_requests.items()}
            for part in ("device", "host", "pinned", "in_use"):
                state["loras"][part] = [names.get(number, f"#{number}") for number in state["loras"][part]]
        return state

    async def load_lora(self, name: str, path: str, *, slot: bool) -> None:
        """Bring a LoRA into host memory, and into a slot where asked."""
        if not _readable(path):
            raise HTTPException(404, f"no LoRA with its weights at {path}")
        if self._models.is_base_model(name):
            raise HTTPException(400, f"{name} is the base model's name")
        async with self._models.lora_resolver_lock[name]:
            known = self._models.lora_requests.get(name)
            if known is not None and lorafiles.supersedes(path, known.lora_path):
                # Under another number and path nothing is found of what was computed with the old weights.
                known = None
            if known is not None and known.lora_path != path:
                raise HTTPException(400, f"LoRA {name} is known from {known.lora_path}")
            request = known or LoRARequest(name, self._models.lora_id_counter.inc(1), path)
            await self._ask(
                "load_lora",
                number=request.lora_int_id,
                name=name,
                path=path,
                is_3d=request.is_3d_lora_weight,
                slot=slot,
                keep=await self._unreadable(),
            )
            self._models.lora_requests[name] = request

    async def free_lora(self, name: str, *, keep_host: bool) -> None:
        """Take a LoRA out of its slot, or out of memory."""
        request = self._models.lora_requests.get(name)
        if request is None:
            raise HTTPException(404, f"no LoRA is named {name}")
        if not keep_host and not _readable(request.lora_path):
            raise HTTPException(400, f"the files of LoRA {name} are gone: it must stay in memory")
        await self._ask("free_lora", number=request.lora_int_id, keep_host=keep_host)

    async def evict(self, agent: str) -> dict[str, Any]:
        """Drop an agent's idle blocks; return how many."""
        return await self._ask("evict_agent", agent=agent)

    async def swap(self, path: str) -> dict[str, Any]:
        """Load other weights of the same architecture, while no request runs."""
        if not Path(path).is_absolute():
            raise HTTPException(400, f"the path of the weights is not absolute: {path}")
        return await self._ask("swap_model", path=path)

    async def _unreadable(self) -> list[int]:
        """Return the LoRAs in memory that could not be read again."""
        loras = (await self._ask("state", prefixes=False))["loras"]
        held = set() if loras is None else set(loras["host"])
        requests = [known for known in self._models.lora_requests.values() if known.lora_int_id in held]
        return [known.lora_int_id for known in requests if not _readable(known.lora_path)]

    async def _ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Ask the engine, between two of its steps. vLLM passes on what failed there as a bare `Exception`."""
        calling = self._client.engine_core.call_utility_async(METHOD, what, arguments)
        answer: Any = (await asyncio.gather(calling, return_exceptions=True))[0]
        if isinstance(answer, EngineDeadError):
            raise answer
        if isinstance(answer, BaseException):
            raise HTTPException(500, str(answer))
        if "refused" in answer:
            raise HTTPException(*answer["refused"])
        return dict(answer)


class Endpoints:
    """The `vllm.endpoint_plugins` entry point (vllm/plugins/endpoint_plugins/interface.py)."""

    name = "scalesim"
    required_tasks = ("generate",)

    def attach_router(self, app: FastAPI) -> None:
        """Add the routes."""
        reason = refusal()
        if reason is None:
            app.include_router(router)
        else:
            log.warning("ScaleSim's routes are not served, this engine stays stock: %s", reason)

    async def init_state(self, engine_client: Any, state: Any, args: Namespace) -> None:
        """Keep what the routes need."""
        state.scalesim = Control(engine_client, state.openai_serving_models)


def _control(request: Request) -> Control:
    control: Control = request.app.state.scalesim
    return control


Controlled = Annotated[Control, Depends(_control)]


@router.get("/residency")
async def residency(control: Controlled, prefixes: bool = False) -> dict[str, Any]:
    """Tell what is where; with `prefixes` also how many blocks each agent has, which are counted between two steps."""
    return await control.residency(prefixes=prefixes)


@router.post("/loras/load")
async def load_lora(body: LoadLora, control: Controlled) -> dict[str, Any]:
    """Bring a LoRA to a tier."""
    await control.load_lora(body.lora_name, body.lora_path, slot=body.tier == "device")
    return {}


@router.post("/loras/free")
async def free_lora(body: FreeLora, control: Controlled) -> dict[str, Any]:
    """Take a LoRA from a tier."""
    await control.free_lora(body.lora_name, keep_host=body.to == "host")
    return {}


@router.post("/evict")
async def evict(body: Evict, control: Controlled) -> dict[str, Any]:
    """Drop one agent's idle blocks."""
    return await control.evict(body.agent)


@router.post("/models/swap")
async def swap(body: Swap, control: Controlled) -> dict[str, Any]:
    """Load other weights of the same architecture."""
    return await control.swap(body.path)


def _readable(path: str) -> bool:
    return Path(path).is_absolute() and lorafiles.lacks(Path(path)) is None
