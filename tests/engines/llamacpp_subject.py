"""A real llama.cpp server on a small model, as the contract's tests need it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.rig import llamacpp
from bench.rig.process import BASE
from scalesim_adapters.base import Capability
from scalesim_adapters.openai.adapter import OpenaiAdapter
from tests.adapters.contract import Subject
from tests.adapters.emulator_rig import make_lora

SLOT_TOKENS = 2048


def start(run: Path, slots: int, flags: Sequence[str] = ()) -> llamacpp.LlamaServer:
    """Return a started server with so many slots, and more flags; skip where llama.cpp isn't installed."""
    if not llamacpp.installed():
        pytest.skip(f"llama.cpp is not installed: {llamacpp.REMEDY}")
    server = llamacpp.LlamaServer([*llamacpp.edge_flags(slots, SLOT_TOKENS), *flags], run=run)
    server.start()
    return server


def subject_of(server: llamacpp.LlamaServer, folder: Path) -> Subject:
    """Describe a started server."""
    return Subject(
        connect=lambda: OpenaiAdapter(server.url, name="contract"),
        base=BASE,
        device_blocks=None,
        max_model_len=SLOT_TOKENS,
        loras=(make_lora(folder / "lora"),),
        kill=server.kill,
        restart=server.restart,
        engine="llama.cpp",
        version="b",
        block_size=None,
        prefix=Capability.LOAD | Capability.PLACE,
        lora=Capability.NONE,
    )
