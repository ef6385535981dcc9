"""A real vLLM on the tiny model, as the contract's tests need it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from bench.rig import vllm
from scalesim_adapters.vllm.adapter import VllmAdapter
from tests.adapters.contract import BLOCK, Subject

POOL_BLOCKS = 160
MAX_MODEL_LEN = 4096
LORA_SLOTS = 2
EXACT_BLOCKS = 280


def start(run: Path, flags: list[str] | None = None, env: Mapping[str, str] | None = None) -> vllm.VllmServer:
    """Return a started server with these flags, or the contract's; skip where vLLM isn't installed."""
    if not vllm.installed():
        pytest.skip(f"vLLM is not installed: {vllm.REMEDY}")
    if flags is None:
        flags = vllm.sidecar_flags(run, POOL_BLOCKS * BLOCK, max_model_len=MAX_MODEL_LEN)
        # Small steps, so that a prefetch can be stopped between two of them.
        flags += ["--max-num-batched-tokens", "256"]
        flags += vllm.lora_flags(slots=LORA_SLOTS, host_places=4)
    server = vllm.VllmServer(vllm.MODELS / "tiny", flags, run=run, env=env)
    server.start()
    return server


def start_exact(run: Path) -> vllm.VllmServer:
    """Return a started server without LoRAs, in a precision without rounding ties."""
    return start(run, [*vllm.sidecar_flags(run, EXACT_BLOCKS * BLOCK), "--dtype", "float32"])


def subject_of(server: vllm.VllmServer) -> Subject:
    """Describe a server that was started with the contract's flags."""
    return Subject(
        connect=lambda: VllmAdapter(server.url, name="contract"),
        base=vllm.BASE,
        device_blocks=POOL_BLOCKS,
        max_model_len=MAX_MODEL_LEN,
        loras=tuple(sorted((vllm.MODELS / "tiny-loras").iterdir())),
        kill=server.kill,
        restart=server.restart,
    )
