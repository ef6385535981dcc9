"""Calls of a still sidecar's API."""

import asyncio
import math
from typing import Any

import httpx

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.plan import Action, Step
from tests.daemon.still import ask

STEP = Step(Action.LOAD, MemoryKind.PREFIX_KV, "sim/a", 0, 2, math.inf, "due next", ("sim/b",))
READS = (
    "/health",
    "/ready",
    "/metrics",
    "/v1/agents",
    "/v1/items",
    "/v1/decisions",
    "/v1/engines",
    "/v1/estimators",
    "/v1/plan",
    "/v1/report",
    "/v1/sources",
)


def get(sidecar: Sidecar, path: str, **params: Any) -> httpx.Response:
    """Ask once, with these query parameters."""
    return asyncio.run(ask(sidecar, lambda client: client.get(path, params=params)))[0]


def post(sidecar: Sidecar, content: Any, **params: Any) -> httpx.Response:
    """Post a message, with these query parameters."""
    return asyncio.run(
        ask(sidecar, lambda client: client.post("/v1/events", content=content, params=params))
    )[0]


def escaped(text: str) -> bytes:
    """Escape every byte, for a path that says exactly this."""
    return "".join(f"%{byte:02X}" for byte in text.encode()).encode()
