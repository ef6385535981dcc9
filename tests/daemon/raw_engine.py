"""An engine that does on the wire whatever a test wants: answers in pieces, breaks off, or says nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
Behaviour = Callable[["Line"], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    """Return a chunk as chunked transfer has it."""
    return b"%x\r\n%b\r\n" % (len(data), data)


@dataclass(slots=True)
class Line:
    """One connection with one request, whole as it came. It is closed when its behaviour returns."""

    request: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def hung_up(self) -> None:
        """Wait until the other end closes the connection."""
        while await self.reader.read(1024):
            pass


@dataclass(slots=True)
class RawEngine:
    """`requests` are the POSTs that came; each is answered by the next of `behaviours`, the last one for ever. What a
    daemon asks is not served."""

    behaviours: list[Behaviour]
    requests: list[bytes] = field(default_factory=list)
    url: str = ""
    server: asyncio.Server | None = None

    def die(self) -> None:
        """Take no more connections."""
        assert self.server is not None
        self.server.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = LENGTH.search(head)
            request = head + await reader.readexactly(int(length[1]) if length else 0)
            if request.startswith(b"GET"):
                writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                await writer.drain()
                return
            self.requests.append(request)
            behave = self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]
            await behave(Line(request, reader, writer))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def raw_engine(*behaviours: Behaviour) -> AsyncIterator[RawEngine]:
    """Run such an engine on the running loop."""
    engine = RawEngine(list(behaviours))
    engine.server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
    engine.url = f"http://127.0.0.1:{engine.server.sockets[0].getsockname()[1]}"
    try:
        yield engine
    finally:
        engine.die()
