"""Ways between the parts, which the bench can spoil: of bytes, of ZeroMQ messages, and of HTTP calls."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum, auto

# ZeroMQ's framing (ZMTP 3.1, rfc.zeromq.org/spec/37): a greeting, then frames of flags, size and body.
GREETING_BYTES = 64
MORE, LONG, COMMAND = 1, 2, 4
READ_BYTES = 1 << 16
Filter = Callable[[bytes], Iterable[bytes]]
"""Given the bytes of one ZeroMQ message, returns what goes on in its place."""


class Way(StrEnum):
    """What becomes of bytes. `SILENT`: they are lost, in connections old and new, and nobody hears of it."""

    OPEN = auto()
    SILENT = auto()


@dataclass(eq=False, slots=True)
class _Connection:
    """`dead` once bytes of it were lost: it never carries any again, and its end is not passed on."""

    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    dead: bool = False
    over: asyncio.Event = field(default_factory=asyncio.Event)

    def abort(self) -> None:
        self.over.set()
        for writer in self.writers:
            writer.transport.abort()


class Stream:
    """Passes on the bytes of connections from `listen` to `to`: each a path, or `host:port`.

    `up` and `down` look at whole ZeroMQ messages on their way to the server and to the client. `spoilt` counts what was
    lost or changed here and the connections that were cut, `ended` those that the server ended or didn't take.
    """

    def __init__(self, listen: str, to: str, *, up: bool = False, down: bool = False) -> None:
        self.listen = listen
        self.to = to
        self._framed = {"up": up, "down": down}
        self.filter: Filter | None = None
        self.spoilt = 0
        self.ended = 0
        self._way = Way.OPEN
        self._connections: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. A port 0 becomes the one that was found."""
        if ":" in self.listen:
            host, _, port = self.listen.rpartition(":")
            self._server = await asyncio.start_server(self._serve, host, int(port))
            self.listen = f"{host}:{self._server.sockets[0].getsockname()[1]}"
        else:
            self._server = await asyncio.start_unix_server(self._serve, self.listen)

    async def close(self) -> None:
        """End all connections and listen no more."""
        if self._server is not None:
            self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def go(self, way: Way) -> None:
        """Let what comes go that way from now on."""
        self._way = way
        if way is Way.SILENT:
            for connection in self._connections:
                connection.dead = True

    def cut(self) -> None:
        """Break off all connections."""
        self.spoilt += len(self._connections)
        for connection in list(self._connections):
            connection.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = _Connection([writer], self._way is Way.SILENT)
        self._connections.add(connection)
        try:
            away, there = await self._reach(connection)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(connection, reader, there, self._framed["up"]))
                group.create_task(self._pump(connection, away, writer, self._framed["down"], back=True))
        except* (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            connection.abort()
            self._connections.discard(connection)
            self._tasks.discard(task)

    async def _reach(self, connection: _Connection) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        try:
            if ":" in self.to:
                host, _, port = self.to.rpartition(":")
                reader, writer = await asyncio.open_connection(host, int(port))
            else:
                reader, writer = await asyncio.open_unix_connection(self.to)
        except OSError:
            self.ended += 1
            raise
        connection.writers.append(writer)
        return reader, writer

    async def _pump(
        self,
        connection: _Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        framed: bool,
        back: bool = False,
    ) -> None:
        async for data, is_message in _messages(reader) if framed else _bytes(reader):
            if connection.dead:
                self.spoilt += 1
                continue
            for part in self._filtered(data) if is_message else (data,):
                writer.write(part)
            await writer.drain()
        if back and not connection.over.is_set():
            self.ended += 1
        if connection.dead and back:
            # The other end has gone, which nobody hears of.
            await connection.over.wait()
        raise ConnectionResetError

    def _filtered(self, message: bytes) -> Iterable[bytes]:
        if self.filter is None:
            return (message,)
        parts = tuple(self.filter(message))
        self.spoilt += parts != (message,)
        return parts


async def _bytes(reader: asyncio.StreamReader) -> AsyncIterator[tuple[bytes, bool]]:
    while data := await reader.read(READ_BYTES):
        yield data, False


async def _messages(reader: asyncio.StreamReader) -> AsyncIterator[tuple[bytes, bool]]:
    """Yield the greeting as it comes, since each side waits for the other's beginning; then each command, and each
    message with all of its frames. Tell messages from the rest."""
    left = GREETING_BYTES
    while left and (data := await reader.read(left)):
        left -= len(data)
        yield data, False
    message = b""
    while head := await reader.read(1):
        head += await reader.readexactly(8 if head[0] & LONG else 1)
        message += head + await reader.readexactly(int.from_bytes(head[1:], "big"))
        if not head[0] & MORE:
            yield message, not message[0] & COMMAND
            message = b""
