"""A daemon's way to its store, which can be cut so that neither side learns of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Way:
    """A proxy before the store at `port` of 127.0.0.1. While it is `cut` it takes connections and bytes, and passes
    nothing on: as a network does that drops packets."""

    def __init__(self, port: int) -> None:
        self.cut = False
        self.port = 0
        self._store = port
        self._open: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Way]:
        """Listen until the context ends."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        with suppress(OSError, asyncio.CancelledError):
            store_reader, store_writer = await asyncio.open_connection("127.0.0.1", self._store)
            back = asyncio.create_task(self._pass_on(store_reader, writer))
            try:
                await self._pass_on(reader, store_writer)
            finally:
                back.cancel()
                store_writer.close()
        writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(1 << 16):
                if not self.cut:
                    writer.write(chunk)
                    await writer.drain()
            writer.close()
