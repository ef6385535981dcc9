"""A real SGLang with the plug-in switched on, and dues to be heard in its folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from bench.rig.sglang import SglangServer
from scalesim_adapters.base import Capability
from tests.adapters.contract import Subject
from tests.adapters.contract_tools import LONG
from tests.adapters.dues_scene import Broadcaster, payload, until
from tests.engines import sglang_subject

SILENCE_SECONDS = 1.0
SAY_EVERY_SECONDS = 0.2


def environment(run: Path) -> dict[str, str]:
    """Return what switches the plug-in on."""
    return {"SCALESIM_DUES": dues(run), "SCALESIM_SILENCE_SECONDS": str(SILENCE_SECONDS)}


def dues(run: Path) -> str:
    """Return where a server that runs in this folder hears dues."""
    return f"ipc://{run}/dues"


def start(run: Path) -> SglangServer:
    """Return a started server on the tiny model."""
    return sglang_subject.start(run, env=environment(run))


def subject_of(server: SglangServer) -> Subject:
    """Describe it for the contract's tests."""
    stock = sglang_subject.subject_of(server)
    return replace(
        stock,
        prefix=stock.prefix | Capability.HINT,
        model=Capability.LOAD | Capability.SLEEP,
        missing=("memory freed by sleep",),
    )


def state(server: SglangServer) -> dict[str, Any]:
    """Return what the plug-in adds to what the server tells of itself; nothing where it isn't there."""
    told = httpx.get(f"{server.url}/server_info", timeout=LONG).json()["internal_states"][0]
    return dict(told.get("scalesim", {}))


def follows(server: SglangServer) -> bool:
    """Ask the server whether it evicts by due."""
    return bool(state(server)["following"])


@contextmanager
def broadcasting(server: SglangServer, agents: dict[str, float]) -> Iterator[None]:
    """Say these dues again and again until the block ends; the server hears them from its beginning on."""
    ending = threading.Event()

    def speak() -> None:
        broadcaster = Broadcaster(dues(server.log.parent))
        clock = {"step": (0.0, 1.0)}
        while not ending.wait(SAY_EVERY_SECONDS):
            broadcaster.say(
                payload("snapshot", clock, {agent: ("step", due) for agent, due in agents.items()})
            )
        broadcaster.close()

    speaker = threading.Thread(target=speak)
    speaker.start()
    try:
        until(lambda: follows(server))
        yield
    finally:
        ending.set()
        speaker.join()
