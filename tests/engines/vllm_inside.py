"""A real vLLM with the plug-in loaded, in developer mode: what it holds is told, moved one by one, and exchanged."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from bench.rig import vllm
from scalesim_adapters.base import Capability, LoraItem, ModelItem, Tier
from scalesim_adapters.vllm.adapter import VllmAdapter
from tests.adapters.contract import BLOCK, Subject
from tests.adapters.contract_tools import eventually
from tests.engines import vllm_subject

SLOTS, HOST_PLACES = 2, 4
ENVIRONMENT = {**vllm.PLUGIN_ENVIRONMENT, "VLLM_PLUGINS": "scalesim", "VLLM_SERVER_DEV_MODE": "1"}
PLUGIN = "scalesim_adapters.vllm.plugin"
LONG = 30.0
LONG_ANSWER = 600


def start(run: Path) -> vllm.VllmServer:
    """Return a started server on the tiny model; its scheduler hears no dues."""
    options = {"scalesim": {"dues": f"ipc://{run}/dues"}}
    flags = [
        *vllm.sidecar_flags(run, vllm_subject.POOL_BLOCKS * BLOCK, max_model_len=vllm_subject.MAX_MODEL_LEN),
        *vllm.lora_flags(SLOTS, HOST_PLACES),
        *("--dtype", "float32", "--max-num-batched-tokens", "256"),
        *("--worker-extension-cls", f"{PLUGIN}.worker.Extension"),
        *("--scheduler-cls", f"{PLUGIN}.scheduler.DueScheduler"),
        *("--additional-config", json.dumps(options)),
    ]
    return vllm_subject.start(run, flags, env=ENVIRONMENT)


def subject_of(server: vllm.VllmServer) -> Subject:
    """Describe it for the contract's tests."""
    stock = vllm_subject.subject_of(server)
    return replace(
        stock,
        prefix=stock.prefix | Capability.LIST | Capability.EVICT | Capability.HINT,
        lora=stock.lora | Capability.EVICT | Capability.DEMOTE,
        model=Capability.LOAD | Capability.SLEEP,
        missing=("memory freed by sleep",),
    )


def lora_items(prefix: str, count: int) -> list[LoraItem]:
    """Return LoRAs under names of the test's own."""
    folders = sorted((vllm.MODELS / "tiny-loras").iterdir())[:count]
    return [LoraItem(f"{prefix}-{number}", folder) for number, folder in enumerate(folders)]


def drive(server: vllm.VllmServer, body: Callable[[VllmAdapter, httpx.AsyncClient], Awaitable[None]]) -> None:
    """Run with a probed adapter and a client of the server; at the end the model is awake with the weights that it was
    started with, and no LoRA's name is left, whatever came of it: the next test has the same server."""

    async def main() -> None:
        adapter = VllmAdapter(server.url, name="inside")
        async with httpx.AsyncClient(base_url=server.url, timeout=120) as client:
            await adapter.probe()
            try:
                await body(adapter, client)
            finally:
                try:
                    await adapter.load(ModelItem("base", vllm.MODELS / "tiny"), Tier.DEVICE, deadline=LONG)
                    for name, path in (await adapter.inventory()).loras.items():
                        await adapter.release(LoraItem(name, Path(path)), deadline=LONG)
                finally:
                    await adapter.close()

    asyncio.run(main())


async def ask(client: httpx.AsyncClient, prompt: list[int], tokens: int = 8, **more: Any) -> tuple[str, int]:
    """Return the text that follows a prompt, and how many of its tokens were cached."""
    body = {"model": "base", "prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    said = (await client.post("/v1/completions", json=body | more)).raise_for_status().json()
    return said["choices"][0]["text"], said["usage"]["prompt_tokens_details"]["cached_tokens"]


async def requests(client: httpx.AsyncClient) -> int:
    """Return how many requests run or wait in the engine now."""
    return int((await client.get("/v1/scalesim/residency")).raise_for_status().json()["requests"])


async def running(
    client: httpx.AsyncClient, prompt: list[int], tokens: int = LONG_ANSWER, **more: Any
) -> asyncio.Task[tuple[str, int]]:
    """Return a request that the engine works on, alone, for a second or two."""

    def asked() -> asyncio.Task[tuple[str, int]]:
        return asyncio.create_task(ask(client, prompt, tokens, **more))

    task = asked()

    async def alone() -> bool:
        nonlocal task
        if task.done():
            # On a busy machine it may come and go between two looks.
            task.result()
            task = asked()
        return await requests(client) == 1

    await eventually(alone)
    return task
