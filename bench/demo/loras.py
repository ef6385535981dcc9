"""The demo's short second phase: are the LoRAs in slots when their agents call?

Agents with a LoRA each share an engine with few slots. What this shows is residency: on a small machine with a fast
disk, bringing in a LoRA of a tiny model takes milliseconds either way.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Final

import httpx

from bench.demo import lab
from bench.rig.daemon import DaemonFailed, DaemonProcess
from bench.rig.vllm import MODELS, VllmServer, lora_flags, sidecar_flags
from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer
from scalesim_client.publisher import Publisher
from scalesim_daemon.view import LoraPlaces

AGENTS: Final = 12
SLOTS: Final = 2
HOST_PLACES: Final = 4
STEPS: Final = 16
PACE: Final = 0.3  # seconds a step takes the simulation
PROMPT_TOKENS: Final = (
    48  # the CPU build computes LoRA prompts slowly, and rightly only without base-model requests beside
)
REGISTERED_WITHIN: Final = 30.0

Residency = Callable[[], Awaitable[list[str]]]


@dataclass(frozen=True, slots=True)
class LoraRun:
    """One run in figures: `in_slot` calls found their LoRA on the device; latency in seconds, to the first token."""

    calls: int
    failed: int
    in_slot: int
    latency: float


@dataclass(frozen=True, slots=True)
class LoraResult:
    """The same calls with the sidecar and without."""

    ours: LoraRun
    alone: LoraRun


def schedule(names: list[str], seed: int = 1) -> list[list[str]]:
    """Return who calls in each step: never more than there are slots."""
    rng = Random(seed)
    return [rng.sample(names, rng.randint(1, SLOTS)) for _ in range(STEPS)]


async def run_loras(kind: lab.EngineKind, folder: Path) -> LoraResult:
    """Play the calls with the sidecar on a fresh engine, then once more on the engine alone, which knows all names by
    then. `folder` is an empty one."""
    with _engine(kind, folder) as (url, loras):
        plan = schedule([path.name for path in loras])
        ours = await _beside(url, folder, loras, plan)
        # The engine tells nobody what is in its slots; this follows its rule, least recently used out first.
        places = LoraPlaces()
        places.device_places, places.host_places = SLOTS, HOST_PLACES

        async def device() -> list[str]:
            return list(places.device)

        return LoraResult(ours, await _play(url, plan, device, used=places.used))


async def _beside(url: str, folder: Path, loras: list[Path], plan: list[list[str]]) -> LoraRun:
    with (
        DaemonProcess(folder, url, lora_slots=SLOTS, lora_host_places=HOST_PLACES) as sidecar,
        Publisher("loras", address=sidecar.feed) as publisher,
    ):
        async with httpx.AsyncClient(base_url=sidecar.api) as api:

            async def known(what: str) -> list[str]:
                answer = (await api.get("/v1/engines")).raise_for_status()
                return list(answer.json()["engines"][0]["loras"][what])

            for path in loras:
                publisher.bind(path.name, lora=str(path), lora_name=path.name)
            deadline = time.monotonic() + REGISTERED_WITHIN
            while len(await known("registered")) < len(loras):
                if time.monotonic() > deadline:
                    raise DaemonFailed(f"not all LoRAs were registered; see {sidecar.log}")
                await asyncio.sleep(0.05)
            return await _play(url, plan, lambda: known("device"), publisher=publisher)


async def _play(
    url: str,
    plan: list[list[str]],
    device: Residency,
    *,
    publisher: Publisher | None = None,
    used: Callable[[str], None] = lambda name: None,
) -> LoraRun:
    in_slot, latencies, failed, rng = 0, [], 0, Random(2)
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        for step, callers in enumerate(plan):
            if publisher is not None:
                publisher.step(step)
                for name in {name for later in plan[step:] for name in later}:
                    publisher.activity(name, until=next(n for n in range(step, STEPS) if name in plan[n]))
            await asyncio.sleep(PACE)
            for name in callers:
                in_slot += name in await device()
                seconds = await _call(client, name, rng, publisher)
                used(name)
                failed += seconds is None
                latencies += [] if seconds is None else [seconds]
    return LoraRun(len(latencies) + failed, failed, in_slot, fmean(latencies or [0.0]))


async def _call(
    client: httpx.AsyncClient, name: str, rng: Random, publisher: Publisher | None
) -> float | None:
    prompt = [rng.randrange(100, 2000) for _ in range(PROMPT_TOKENS)]
    body = {"model": name, "prompt": prompt, "max_tokens": 1, "session_id": f"loras/{name}"}
    started = time.perf_counter()
    if publisher is None:
        answer = await client.post("/v1/completions", json=body)
    else:
        with publisher.invocation(name):
            answer = await client.post("/v1/completions", json=body)
    return time.perf_counter() - started if answer.is_success else None


@contextmanager
def _engine(kind: lab.EngineKind, folder: Path) -> Iterator[tuple[str, list[Path]]]:
    server: AbstractContextManager[VllmServer | EmulatorServer]
    if kind == "emulator":
        loras = [_hollow_lora(folder / "originals" / f"lora{number:02}") for number in range(AGENTS)]
        config = EmulatorConfig(
            blocks=64,
            max_loras=SLOTS,
            max_cpu_loras=HOST_PLACES,
            time_scale=lab.EMULATED_SPEED,
            endpoint=f"ipc://{folder}/kv",
            replay_endpoint=f"ipc://{folder}/kv-replay",
        )
        server = EmulatorServer(config)
    else:
        loras = sorted((MODELS / "tiny-loras").iterdir())[:AGENTS]
        flags = sidecar_flags(folder, 64 * 32) + lora_flags(slots=SLOTS, host_places=HOST_PLACES)
        server = VllmServer(MODELS / "tiny", flags, run=folder)
    with server as running:
        yield running.url, loras


def _hollow_lora(path: Path) -> Path:
    """Write a LoRA without weights, as the emulated engine takes it."""
    path.mkdir(parents=True)
    (path / "adapter_config.json").write_text(json.dumps({"r": 8}))
    (path / "adapter_model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}" + bytes(64))
    return path
