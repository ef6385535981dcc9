"""The engine under a daemon in chaos: emulated, or a real vLLM or SGLang, with all of its processes."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from bench.chaos.truth import NotTold, Truth, emulated, replayed
from bench.rig import sglang, vllm
from bench.rig.process import BASE, MODELS, EngineServer, free_port
from scalesim_adapters.emulator.faults import CONTROL, TRUTH

BLOCK = 32
POOL_BLOCKS = 96
SLOTS = 2
HOST_PLACES = 3
LORAS = 4
LORA_BYTES = 300_000
EMULATOR, VLLM, SGLANG = "emulator", "vllm", "sglang"
# What the processes that compute call themselves, in the 15 bytes of a comm (proc(5)); the server's own answers on.
CORES = ("VLLM::EngineCor", "VLLM::Worker", "sglang::schedul")
INSTALLED = {EMULATOR: lambda: True, VLLM: vllm.installed, SGLANG: sglang.installed}


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine. The sockets of its KV events are `kv` and `replay`; `loras` are what agents may bind."""

    kind: str
    server: EngineServer
    kv: Path
    replay: Path
    loras: tuple[Path, ...]

    @property
    def settings(self) -> dict[str, Any]:
        """What a daemon is told of it, but for its address."""
        kind = "sglang" if self.kind == SGLANG else "vllm"
        return {"kind": kind, "name": "engine", "lora_slots": SLOTS, "lora_host_places": HOST_PLACES}

    def body(self, prompt: list[int], lora: str | None, session: str) -> dict[str, Any]:
        """Return a request for four tokens."""
        model = {"model": BASE if lora is None else lora}
        if self.kind == SGLANG and lora is not None:
            model = {"model": BASE, "lora_path": lora}
        return {**model, "prompt": prompt, "max_tokens": 4, "temperature": 0, "session_id": session}

    async def truth(self, client: httpx.AsyncClient) -> Truth:
        """Ask the engine, past everything that lies between it and the daemon. Raises `NotTold`."""
        try:
            if self.kind == EMULATOR:
                answer = await client.get(f"{self.server.url}{TRUTH}")
                return emulated(answer.raise_for_status().json(), BLOCK)
            return await replayed(self.replay, BLOCK, await self._registered(client))
        except (httpx.HTTPError, ValueError, KeyError) as error:
            raise NotTold(f"{type(error).__name__}: {error}") from error

    async def _registered(self, client: httpx.AsyncClient) -> dict[str, str]:
        cards = (await client.get(f"{self.server.url}/v1/models")).raise_for_status().json()["data"]
        return {card["id"]: str(card.get("root")) for card in cards if card.get("parent") is not None}

    async def hang(self, client: httpx.AsyncClient) -> None:
        """Let it answer, and take no step. Raises `httpx.HTTPError`."""
        if self.kind == EMULATOR:
            answer = await client.post(f"{self.server.url}{CONTROL}", json={"type": "stall", "steps": 0})
            answer.raise_for_status()
        self._signal_cores(signal.SIGSTOP)

    async def unhang(self, client: httpx.AsyncClient) -> None:
        """Let it go on. Raises `httpx.HTTPError`."""
        if self.kind == EMULATOR:
            (await client.delete(f"{self.server.url}{CONTROL}")).raise_for_status()
        self._signal_cores(signal.SIGCONT)

    def _signal_cores(self, number: signal.Signals) -> None:
        for pid in family(self.server.pid)[1:]:
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().startswith(CORES):
                    os.kill(pid, number)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes, but not to the warden above them."""
        for pid in family(self.server.pid)[1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def family(pid: int) -> list[int]:
    """Return a process and all below it, as /proc has them now."""
    pids = [pid]
    for parent in pids:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError):
                pids += map(int, task.read_text().split())
    return pids


def alive(pid: int) -> bool:
    """Whether a process is there."""
    return Path(f"/proc/{pid}").exists()


def build(kind: str, folder: Path) -> Engine:
    """Return an engine that isn't started yet, with its sockets and log in `folder`."""
    if kind == EMULATOR:
        loras = tuple(_hollow_lora(folder / "loras" / f"lora{number:02}") for number in range(LORAS))
        return Engine(kind, _emulator(folder), folder / "kv", folder / "kvr", loras)
    loras = tuple(sorted((MODELS / "tiny-loras").iterdir())[:LORAS])
    server: EngineServer
    if kind == VLLM:
        flags = [*vllm.sidecar_flags(folder, POOL_BLOCKS * BLOCK), *vllm.lora_flags(SLOTS, HOST_PLACES)]
        server = vllm.VllmServer(MODELS / "tiny", flags, run=folder)
    else:
        flags = [*sglang.sidecar_flags(folder, POOL_BLOCKS * BLOCK), *sglang.lora_flags(SLOTS)]
        server = sglang.SglangServer(MODELS / "tiny", flags, run=folder)
    return Engine(kind, server, folder / "kv", folder / "kv-replay", loras)


def _emulator(folder: Path) -> EngineServer:
    port = free_port()
    sizes: Mapping[str, object] = {
        "port": port,
        "endpoint": f"ipc://{folder}/kv",
        "replay-endpoint": f"ipc://{folder}/kvr",
        "blocks": POOL_BLOCKS,
        "block-size": BLOCK,
        "max-loras": SLOTS,
        "max-cpu-loras": HOST_PLACES,
        "time-scale": 0.3,
    }
    flags = [part for name, value in sizes.items() for part in (f"--{name}", str(value))]
    return EngineServer(
        [sys.executable, "-m", "scalesim_adapters.emulator", *flags],
        {},
        port=port,
        log=folder / "engine.log",
        remedy="run `make setup`",
    )


def _hollow_lora(path: Path) -> Path:
    """Write a LoRA that holds nothing, but has its own content."""
    path.mkdir(parents=True)
    (path / "adapter_config.json").write_text(json.dumps({"r": 8, "base_model_name_or_path": path.name}))
    header = b"{}"
    (path / "adapter_model.safetensors").write_bytes(
        len(header).to_bytes(8, "little") + header + bytes(LORA_BYTES)
    )
    return path
