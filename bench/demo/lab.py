"""The engines of one demo, started and stopped with the folder of their logs and sockets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from bench.rig.vllm import MODELS, VllmServer, default_flags, sidecar_flags, thread_binding
from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer

EngineKind = Literal["vllm", "emulator"]
Flags = Literal["default", "ours"]

POOL_TOKENS: Final = 290 * 32  # room for 8.5 of the 25 agents' prompts
EMULATED_SPEED: float = 1.0  # that of the emulator's cost model


@contextmanager
def engine(kind: EngineKind, flags: Flags, folder: Path) -> Iterator[str]:
    """Run an engine with vLLM's default flags or ours, and the same KV pool; yield its base URL."""
    folder.mkdir()
    server = _emulator(flags, folder) if kind == "emulator" else _vllm(flags, folder)
    with server:
        yield server.url


def _vllm(flags: Flags, folder: Path) -> VllmServer:
    given = default_flags(POOL_TOKENS) if flags == "default" else sidecar_flags(folder, POOL_TOKENS)
    return VllmServer(MODELS / "mid", given, run=folder, env=thread_binding())


def _emulator(flags: Flags, folder: Path) -> EmulatorServer:
    if flags == "default":
        shape: dict[str, Any] = {
            "block_size": 128,
            "blocks": POOL_TOKENS // 128,
            "scheduling_policy": "fcfs",
        }
    else:
        shape = {
            "blocks": POOL_TOKENS // 32,
            "endpoint": f"ipc://{folder}/kv",
            "replay_endpoint": f"ipc://{folder}/kv-replay",
        }
    return EmulatorServer(EmulatorConfig(time_scale=EMULATED_SPEED, max_loras=0, **shape))
