"""A real SGLang on the tiny model, as the contract's tests need it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from bench.rig import sglang
from bench.rig.process import BASE, MODELS
from scalesim_adapters.sglang.adapter import SglangAdapter
from tests.adapters.contract import BLOCK, Subject

POOL_BLOCKS = 160
MAX_MODEL_LEN = 4096


def start(
    run: Path, flags: list[str] | None = None, env: Mapping[str, str] | None = None
) -> sglang.SglangServer:
    """Return a started server with `flags` besides those for a sidecar, or the contract's; skip where SGLang isn't
    installed."""
    if not sglang.installed():
        pytest.skip(f"SGLang is not installed: {sglang.REMEDY}")
    ours = sglang.sidecar_flags(run, POOL_BLOCKS * BLOCK, max_model_len=MAX_MODEL_LEN, page_size=BLOCK)
    server = sglang.SglangServer(
        MODELS / "tiny", ours + (sglang.lora_flags() if flags is None else flags), run=run, env=env
    )
    server.start()
    return server


def subject_of(server: sglang.SglangServer) -> Subject:
    """Describe a server that was started with the contract's flags."""
    return Subject(
        connect=lambda: SglangAdapter(server.url, name="contract"),
        base=BASE,
        device_blocks=POOL_BLOCKS,
        max_model_len=MAX_MODEL_LEN,
        loras=tuple(sorted((MODELS / "tiny-loras").iterdir())),
        kill=server.kill,
        restart=server.restart,
        engine="sglang",
        tail_first=False,
    )
