"""A proxy before one TCP port, of which subclasses say what becomes of the bytes."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self


class Relay(ABC):
    """Takes connections at `port`, 0 until it listens, for the one at `to` of 127.0.0.1."""

    def __init__(self, to: int) -> None:
        self.port = 0
        self._to = to
        self._open: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[Self]:
        """Listen until the context ends."""
        server = await asyncio.start_server(self._accept, host, port)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)

    @abstractmethod
    async def there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what comes from whoever has connected."""

    async def back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what is answered."""
        with suppress(OSError):
            while chunk := await reader.read(1 << 16):
                writer.write(chunk)
                await writer.drain()
            writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
            answers = asyncio.create_task(self.back(far_reader, writer))
            try:
                await self.there(reader, far_writer)
            finally:
                answers.cancel()
                far_writer.close()
        writer.close()
