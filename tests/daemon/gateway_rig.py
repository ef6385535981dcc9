"""A gateway on a real socket, over a sidecar of which a test says what it knows."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from scalesim_daemon.app import connect_driver
from scalesim_daemon.gateway.app import Gateway
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.settings import EngineSettings, GatewaySettings
from tests.daemon.live import WITHIN
from tests.daemon.still import still_sidecar


def beside(folder: Path, *engines: str, **settings: Any) -> Sidecar:
    """Return a sidecar that stands still beside engines of which it knows nothing yet."""
    sidecar = still_sidecar(folder)
    named = tuple(EngineSettings(url=url, name=f"engine-{number}") for number, url in enumerate(engines))
    gateway = GatewaySettings(enabled=True, port=0, **settings)
    sidecar.settings = sidecar.settings.model_copy(update={"engines": named, "gateway": gateway})
    for engine in named:
        sidecar.drivers[engine.name] = connect_driver(sidecar, engine)
    return sidecar


@asynccontextmanager
async def front(sidecar: Sidecar) -> AsyncIterator[httpx.AsyncClient]:
    """Serve a gateway over the sidecar; yields a client of it."""
    gateway = Gateway(sidecar)
    door = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        gateway, log_config=None, log_level="warning", lifespan="off", server_header=False, date_header=False
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve([door]))
    sidecar.gateway_url = f"http://127.0.0.1:{door.getsockname()[1]}"
    try:
        async with httpx.AsyncClient(base_url=sidecar.gateway_url, timeout=WITHIN) as client:
            yield client
    finally:
        server.should_exit = True
        await serving
        await gateway.close()
        for driver in sidecar.drivers.values():
            await driver.adapter.close()
        sidecar.library.close()


@asynccontextmanager
async def gateway(folder: Path, *engines: str, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Serve a gateway in front of engines of which nothing is known."""
    async with front(beside(folder, *engines, **settings)) as client:
        yield client
