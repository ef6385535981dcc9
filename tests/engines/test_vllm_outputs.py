"""What was prefetched is what the engine would have computed: equal texts, in a precision without rounding ties."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from bench.rig.vllm import VllmServer
from scalesim_adapters.base import PrefixItem, Tier
from scalesim_adapters.vllm.adapter import VllmAdapter
from tests.adapters.contract import BLOCK
from tests.engines.small_village import tokens

pytestmark = pytest.mark.engine

AGENTS = 6
PREFIX_BLOCKS = 20
OUTPUT_TOKENS = 24


async def answer(engine: httpx.AsyncClient, prompt: list[int], **more: Any) -> tuple[str, int]:
    body = {
        "model": "base",
        "prompt": prompt,
        "max_tokens": OUTPUT_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
    }
    said = (await engine.post("/v1/completions", json=body | more)).raise_for_status().json()
    return said["choices"][0]["text"], said["usage"]["prompt_tokens_details"]["cached_tokens"]


def test_prefetched_prefixes_give_the_texts_of_a_cold_engine(exact_vllm_server: VllmServer) -> None:
    """Cold: all at once under a salt of their own. Prefetched: chunk by chunk, then all at once."""

    async def scene() -> None:
        adapter = VllmAdapter(exact_vllm_server.url)
        async with httpx.AsyncClient(base_url=exact_vllm_server.url, timeout=120) as engine:
            prefixes = [tokens(f"outputs/{number}", PREFIX_BLOCKS * BLOCK) for number in range(AGENTS)]
            prompts = [[*prefix, *tokens(f"fresh/{i}", BLOCK + 5)] for i, prefix in enumerate(prefixes)]
            cold = await asyncio.gather(*(answer(engine, prompt, cache_salt="cold") for prompt in prompts))
            assert [cached for _, cached in cold] == [0] * AGENTS
            await adapter.probe()
            for number, prefix in enumerate(prefixes):
                for stop in range(8, PREFIX_BLOCKS + 8, 8):
                    chunk = tuple(prefix[: stop * BLOCK])
                    await adapter.load(
                        PrefixItem(f"outputs/a{number}", "base", chunk), Tier.DEVICE, deadline=30
                    )
            warm = await asyncio.gather(*(answer(engine, prompt) for prompt in prompts))
            await adapter.close()
        assert [cached for _, cached in warm] == [PREFIX_BLOCKS * BLOCK] * AGENTS
        assert [text for text, _ in warm] == [text for text, _ in cold]
        assert len({text for text, _ in cold}) > 1

    asyncio.run(scene())
