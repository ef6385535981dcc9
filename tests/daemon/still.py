"""A sidecar that stands still: no loop, store or engine runs, so that a test says exactly what is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from scalesim_adapters.base import Capability, Cleared, EngineInfo, MemoryKind, Missing, Stored, Tier
from scalesim_adapters.vllm.adapter import VllmAdapter
from scalesim_daemon.api import build_api
from scalesim_daemon.driver import Driver
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.loras import LoraLibrary
from scalesim_daemon.settings import LoraSettings, RunMode, Settings
from scalesim_daemon.store import Mirror
from scalesim_daemon.view import EngineView

BLOCK = 4
NOBODY = "http://127.0.0.1:9"
INFO = EngineInfo(
    engine="vllm",
    version="0.32.0",
    incarnation="1",
    base_models=("base",),
    capabilities={
        MemoryKind.PREFIX_KV: Capability.LOAD | Capability.EVENTS,
        MemoryKind.LORA: Capability.LIST,
        MemoryKind.MODEL: Capability.NONE,
    },
    max_model_len=64,
    block_size=BLOCK,
    device_blocks=16,
    lora_slots=2,
    lora_host_places=4,
    missing=(Missing("KV event replay", '"replay_endpoint" in --kv-events-config'),),
)


def still_sidecar(folder: Path, **fields: Any) -> Sidecar:
    """Return a sidecar with nothing in it."""
    loras = LoraSettings(links_dir=folder / "links", staging_dir=folder / "staging")
    settings = Settings(loras=loras)
    return Sidecar(settings, LoraLibrary.open(loras), Mirror("redis://127.0.0.1:9"), RunMode.ACTIVE, **fields)


def add_engine(sidecar: Sidecar, name: str = "one", info: EngineInfo | None = INFO) -> Driver:
    """Give the sidecar an engine that has answered with `info`, or never did."""
    view = EngineView(name, quiet_share=0.04)
    driver = Driver(
        VllmAdapter(NOBODY), view, sidecar.population, sidecar.library, sidecar.wake, sidecar.record
    )
    if info is not None:
        view.probed(info)
        view.happened(Cleared())
    sidecar.drivers[name] = driver
    return driver


def open_stream(sidecar: Sidecar, simulation: str = "sim", clock: str = "step") -> None:
    """Open a stream whose source has the simulation's name."""
    opened = {"type": "stream.opened", "simulation": simulation, "source": simulation, "incarnation": 1}
    assert sidecar.admit(simulation, None, [{**opened, "clock": clock}]).accepted == 1


def say(sidecar: Sidecar, *events: dict[str, Any], simulation: str = "sim") -> None:
    """Let the simulation say something that is taken."""
    verdict = sidecar.admit(simulation, None, list(events))
    assert verdict.accepted == len(events), verdict.refused


def stored(agent: str, blocks: int, *, first: int = 0) -> Stored:
    """Blocks of an agent's prefix as its engine announces them; the tokens are `tokens(first, blocks)`."""
    hashes = tuple(range(1000 + first, 1000 + first + blocks))
    return Stored(hashes, None, tuple(tokens(first, blocks)), BLOCK, Tier.DEVICE, agent)


def tokens(first: int, blocks: int) -> list[int]:
    """The tokens of so many blocks."""
    return list(range(first * BLOCK, (first + blocks) * BLOCK))


async def ask(sidecar: Sidecar, *asks: Callable[[httpx.AsyncClient], Any]) -> list[httpx.Response]:
    """Return the API's answers; what an endpoint raises is raised here."""
    transport = httpx.ASGITransport(app=build_api(sidecar))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return [await one(client) for one in asks]
