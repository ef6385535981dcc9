"""Fifty LoRAs through two slots and four host places of a real vLLM, beside a real daemon process.

vLLM's CPU build computes LoRAs token by token, and gives requests of the base model the LoRA of whatever request
they share a batch with. So prompts have at most 64 tokens, and no request of the base model runs beside them.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import httpx
import pytest

from bench.rig import vllm
from bench.rig.vllm import VllmServer
from tests.engines import vllm_subject
from tests.engines.lora_scene import HOST_PLACES, SLOTS, Scene, play
from tests.engines.vllm_inside import drive

POOL_TOKENS = 64 * 32


async def held_by(url: str, names: list[str]) -> set[str]:
    """Ask vLLM's worker, by a route of developer mode, which LoRAs it holds; their ids count the loadings from 1."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        cards = (await client.get("/v1/models")).raise_for_status().json()["data"]
        loaded = [card["id"] for card in cards if card["id"] in names]
        answer = await client.post("/collective_rpc", json={"method": "list_loras"})
        (ids,) = answer.raise_for_status().json()["results"]
        return {loaded[number - 1] for number in ids}


@pytest.mark.engine
def test_no_request_fails_whatever_becomes_of_the_daemon(tmp_path: Path) -> None:
    originals = sorted((vllm.MODELS / "tiny-loras").iterdir())
    names = [path.name for path in originals]
    flags = [*vllm.sidecar_flags(tmp_path, POOL_TOKENS), *vllm.lora_flags(SLOTS, HOST_PLACES)]
    server = vllm_subject.start(tmp_path, flags, env={"VLLM_SERVER_DEV_MODE": "1"})
    try:
        asyncio.run(play(Scene(server.url, originals, tmp_path, partial(held_by, server.url, names))))
    finally:
        server.stop()


async def told_by(url: str) -> set[str]:
    """Ask the plug-in which LoRAs are in host places."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        answer = await client.get("/v1/scalesim/residency")
        return set(answer.raise_for_status().json()["loras"]["host"])


@pytest.mark.engine
def test_with_the_plug_in_the_daemon_means_what_the_engine_holds(
    inside_vllm_server: VllmServer, tmp_path: Path
) -> None:
    originals = sorted((vllm.MODELS / "tiny-loras").iterdir())
    url = inside_vllm_server.url
    scene = Scene(url, originals, tmp_path, partial(told_by, url), steps=40)

    async def body(*_: object) -> None:
        await play(scene)

    drive(inside_vllm_server, body)
    assert scene.agreed == scene.compared
