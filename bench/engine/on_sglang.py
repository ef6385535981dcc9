"""SGLang's places: its own LRU tier is HiCache; with our plug-in the device and that same tier evict by due.

HiCache stores what the device evicts (`write_back`), with and without our plug-in. By its default it stores what is
computed and keeps what the device has, too: with a quarter and a half of the population in device and tier it then
holds half of it, and not three quarters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import httpx

from bench.engine.kind import EngineKind, Site
from bench.rig.process import MODELS, ROOT, EngineServer
from bench.rig.sglang import SHIM, VERSION, SglangServer, host_tier_flags, sidecar_flags
from scalesim_adapters.sglang.plugin import ENDPOINT

TIERED: Final = ("lru", "due")
INSIDE: Final = ("due", "due-device")


@contextmanager
def _launched(site: Site) -> Iterator[EngineServer]:
    flags = sidecar_flags(site.folder, site.pool_tokens)
    if site.place in TIERED:
        flags += host_tier_flags(site.tier_tokens / site.pool_tokens)
        flags += ["--hicache-write-policy", "write_back"]
    environment = {
        "PYTHONPATH": f"{SHIM}:{ROOT / 'adapters'}",
        **({ENDPOINT: site.dues} if site.place in INSIDE else {}),
    }
    server = SglangServer(MODELS / site.model, flags, run=site.folder, env=environment)
    server.launch()
    with server:
        yield server


async def _emptied(client: httpx.AsyncClient) -> bool:
    return (await client.post("/flush_cache")).is_success


SGLANG: Final = EngineKind(
    name="sglang",
    title=f"SGLang {VERSION} (CPU)",
    flags=(
        "those that the sidecar asks for, of the engine alone, too: pages of 32 tokens, steps of 288, KV events, "
        "sessions in the radix cache; numbers of 32 bits; the host tier is HiCache, which stores what the device "
        "evicts (write_back), and whose copies torch makes here in place of CUDA's kernels"
    ),
    launched=_launched,
    emptied=_emptied,
)
