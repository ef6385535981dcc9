"""The rig itself, and what a probe says of a vLLM that was started without us in mind."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench.rig import process, vllm
from scalesim_adapters.base import Capability, EngineInfo, FeedLost, MemoryKind, ResidencyEvent
from scalesim_adapters.vllm.adapter import VllmAdapter
from tests.engines import vllm_subject

pytestmark = pytest.mark.engine


def processes_with(text: str) -> list[str]:
    """Return the command lines of running processes that contain `text`."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(entry.read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    return [line for line in lines if text in line]


def test_vllms_defaults_lack_what_the_probe_names(tmp_path: Path) -> None:
    async def ask(url: str) -> tuple[EngineInfo, ResidencyEvent]:
        adapter = VllmAdapter(url)
        info = await adapter.probe()
        event = await anext(adapter.events())
        await adapter.close()
        return info, event

    server = vllm_subject.start(tmp_path, vllm.default_flags(4096))
    try:
        info, event = asyncio.run(ask(server.url))
        assert processes_with(f"--port {server.port}")
    finally:
        server.stop()
    assert not processes_with(f"--port {server.port}")
    assert [missing.what for missing in info.missing] == ["KV events", "LoRA"]
    assert info.capabilities[MemoryKind.PREFIX_KV] == Capability.LOAD
    assert info.capabilities[MemoryKind.LORA] == Capability.NONE
    assert (info.block_size, info.device_blocks) == (128, 32)
    assert isinstance(event, FeedLost)
    assert "--kv-events-config" in event.reason


def test_an_engine_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(process.EngineFailed, match="--no-such-flag"):
        vllm_subject.start(tmp_path, ["--no-such-flag"])
