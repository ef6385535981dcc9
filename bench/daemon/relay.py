"""A relay before an engine that notes when a request for an agent first reaches it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

SESSION = re.compile(rb'"session_id": ?"([^"]+)"')
CHUNK = 1 << 16


class Relay:
    """Passes bytes on, both ways. `first_at` has, by the `session_id` in a request, the system's monotonic clock in
    nanoseconds at which the first request was there."""

    def __init__(self, engine_port: int) -> None:
        self.port = 0
        self.first_at: dict[str, int] = {}
        self._engine_port = engine_port

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Listen at `port` meanwhile."""
        server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, forth = await asyncio.open_connection("127.0.0.1", self._engine_port)
        except OSError:
            writer.close()
            return
        with suppress(OSError, asyncio.CancelledError):
            await asyncio.gather(self._pass(reader, forth, note=True), self._pass(back, writer, note=False))
        for end in (writer, forth):
            end.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, note: bool) -> None:
        while data := await reader.read(CHUNK):
            for session in SESSION.findall(data) if note else ():
                self.first_at.setdefault(session.decode(), time.monotonic_ns())
            writer.write(data)
            await writer.drain()
        writer.close()
