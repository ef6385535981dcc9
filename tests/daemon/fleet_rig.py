"""Daemons that share a Redis, and a door between two of them that can be shut, or lead elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from scalesim_daemon.loop import Sidecar
from tests.daemon.live import daemon
from tests.daemon.stores import External


@asynccontextmanager
async def member(
    folder: Path, name: str, redis: str, *engines: str, **more: Any
) -> AsyncIterator[tuple[Sidecar, httpx.AsyncClient]]:
    """Run a daemon of a fleet; it listens on TCP, as others would reach it."""
    own = folder / name
    own.mkdir(exist_ok=True)
    store = {"url": redis, "cluster": more.pop("cluster", False)}
    settings = {
        "redis": store,
        "fleet": {"enabled": True, "name": name},
        "feed": {"bind": "tcp://127.0.0.1:*"},
        **more,
    }
    async with daemon(own, *engines, **settings) as (sidecar, api):
        yield sidecar, api


@asynccontextmanager
async def store() -> AsyncIterator[External]:
    """Run a Redis that keeps nothing."""
    server = External()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


class Door:
    """A TCP port that leads to another; `shut` breaks all connections and takes no new ones until it leads somewhere
    again."""

    def __init__(self) -> None:
        self._target: tuple[str, int] | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def open(self, host: str, port: int) -> None:
        """Lead to a port from now on; connections that lead elsewhere break."""
        self.shut()
        self._target = host, port
        if self._server is None:
            self._server = await asyncio.start_server(self._through, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]

    def shut(self) -> None:
        """Lead nowhere."""
        self._target = None
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        """Close the port."""
        self.shut()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _through(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._target is None:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        try:
            await asyncio.gather(_pass(reader, far_writer), _pass(far_reader, writer))
        finally:
            self._writers -= {writer, far_writer}
            for end in (writer, far_writer):
                end.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.transport.abort()


def port_of(address: str) -> int:
    """Return the port of `tcp://host:port`."""
    return int(address.rpartition(":")[2])
