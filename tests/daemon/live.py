"""A whole daemon for tests: real sockets and store, an emulated engine, and questions asked until they hold."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgpack
import zmq
import zmq.asyncio

from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer
from scalesim_client import Curve
from scalesim_client.codec import pack_frames
from scalesim_daemon.app import running
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.setting_sources import load_settings

WITHIN = 15.0


def emulator(folder: Path, **fields: Any) -> EmulatorServer:
    """Return an emulated engine whose feed lies in a folder."""
    config = EmulatorConfig(endpoint=f"ipc://{folder}/kv", replay_endpoint=f"ipc://{folder}/kvr", **fields)
    return EmulatorServer(config)


def overrides(folder: Path, *engines: str, **more: Any) -> dict[str, Any]:
    """Return settings that keep everything in a folder."""
    return {
        "feed": {"bind": f"ipc://{folder}/feed"},
        "broadcast": {"bind": f"ipc://{folder}/dues"},
        "api": {"port": 0},
        "redis": {"data_dir": str(folder / "valkey")},
        "loras": {"links_dir": str(folder / "links"), "staging_dir": str(folder / "staging")},
        "engines": [
            {"kind": "vllm", "url": url, "name": f"engine-{number}"} for number, url in enumerate(engines)
        ],
        **more,
    }


@asynccontextmanager
async def daemon(
    folder: Path, *engines: str, **more: Any
) -> AsyncIterator[tuple[Sidecar, httpx.AsyncClient]]:
    """Run a daemon beside engines; yields it and a client of its API."""
    settings = load_settings(None, overrides(folder, *engines, **more))
    async with (
        running(settings) as sidecar,
        httpx.AsyncClient(base_url=sidecar.api_url, timeout=WITHIN) as api,
    ):
        yield sidecar, api


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again until it holds."""
    deadline = time.monotonic() + WITHIN
    while not await holds():
        assert time.monotonic() < deadline, "it never came to hold"
        await asyncio.sleep(0.01)


async def report(api: httpx.AsyncClient) -> dict[str, Any]:
    """Return the daemon's report."""
    answer = await api.get("/v1/report")
    assert answer.status_code == 200
    return dict(answer.json())


async def resident(api: httpx.AsyncClient, agent: str) -> int:
    """Return how many blocks of an agent's prefix are on the only engine."""
    answer = await api.get(f"/v1/agents/{agent}")
    if answer.status_code != 200:
        return 0
    return sum(engine["resident_blocks"] for engine in answer.json()["engines"].values())


class Raw:
    """A source that says whatever a test wants, well formed or not."""

    def __init__(
        self, address: str, source: str = "raw", curve: Curve | None = None, identity: bytes | None = None
    ) -> None:
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.setsockopt(zmq.LINGER, 0)
        if identity is not None:
            self._socket.setsockopt(zmq.ROUTING_ID, identity)
        if curve is not None:
            self._socket.setsockopt(zmq.CURVE_SERVERKEY, curve.server)
            self._socket.setsockopt(zmq.CURVE_PUBLICKEY, curve.public)
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, curve.secret)
        self._socket.connect(address)
        self._source = source
        self.seq = 0

    async def say(self, *events: Any) -> None:
        """Send events as JSON, numbered."""
        await self.send(pack_frames(self._source, self.seq, json.dumps([time.time(), list(events)]).encode()))
        self.seq += 1

    async def send(self, frames: list[bytes]) -> None:
        """Send frames as they are."""
        await self._socket.send_multipart(frames)

    async def open(
        self, simulation: str = "sim", *, incarnation: int = 1, version: str = "1.0"
    ) -> dict[str, Any]:
        """Open the stream and return the daemon's welcome."""
        self.seq = 0
        await self.say(
            {
                "type": "stream.opened",
                "schema_version": version,
                "simulation": simulation,
                "source": self._source,
                "incarnation": incarnation,
                "clock": "step",
            }
        )
        return await self.hear()

    async def hear(self) -> dict[str, Any]:
        """Return the daemon's next control message."""
        frames = await asyncio.wait_for(self._socket.recv_multipart(), WITHIN)
        return dict(msgpack.unpackb(frames[-1])[1][0])

    def close(self) -> None:
        """Close the socket."""
        self._context.destroy(linger=0)
