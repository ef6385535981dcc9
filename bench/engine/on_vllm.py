"""vLLM's places: its own LRU tier is that of `bench.host_tier`, ours its connector and scheduler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import httpx

from bench.engine.kind import EngineKind, Site
from bench.host_tier.engines import BLOCK_TOKENS, Kind, launched
from bench.rig.process import EngineServer
from bench.rig.vllm import VERSION


@contextmanager
def _launched(site: Site) -> Iterator[EngineServer]:
    kind: Kind = "alone" if site.place == "roomy" else site.place
    blocks = site.tier_tokens // BLOCK_TOKENS
    # For /reset_prefix_cache.
    env = {"VLLM_SERVER_DEV_MODE": "1"}
    with launched(kind, site.folder, blocks, site.dues, site.pool_tokens, site.model, **env) as server:
        yield server


async def _emptied(client: httpx.AsyncClient) -> bool:
    answer = await client.post("/reset_prefix_cache", params={"reset_external": True})
    return bool(answer.raise_for_status().json()["success"])


VLLM: Final = EngineKind(
    name="vllm",
    title=f"vLLM {VERSION} (CPU)",
    flags="those that the sidecar asks for, of the engine alone, too: blocks of 32 tokens, KV events, priorities",
    launched=_launched,
    emptied=_emptied,
)
