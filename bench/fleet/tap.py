"""Stands before an engine and notes who sends it what."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import NamedTuple

ID = re.compile(rb"^x-request-id: *scalesim-(?P<daemon>[A-Za-z0-9]+)-", re.IGNORECASE | re.MULTILINE)
LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)
ACTS = re.compile(rb"POST /v1/(completions|load_lora_adapter|unload_lora_adapter) ")
# By a prompt of one token a daemon that has just found an engine learns what its answers tell.
ASKING = re.compile(rb'"prompt":\[\d+\]')


class Act(NamedTuple):
    """A request by which a daemon changes what an engine holds, `at` a monotonic time in seconds."""

    at: float
    daemon: str


class Tap:
    """A proxy before the engine at `port` of 127.0.0.1, which passes bytes on as they come. Daemons are told apart by
    what their requests' ids begin with."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.acts: list[Act] = []
        self._engine = port
        self._open: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where daemons find the engine."""
        return f"http://127.0.0.1:{self.port}"

    def of(self, daemon: str) -> list[Act]:
        """Return the acts of one daemon."""
        return [act for act in self.acts if act.daemon == daemon]

    @asynccontextmanager
    async def open(self, host: str = "127.0.0.1") -> AsyncIterator[Tap]:
        """Listen until the context ends."""
        server = await asyncio.start_server(self._accept, host, self.port)
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
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            engine_reader, engine_writer = await asyncio.open_connection("127.0.0.1", self._engine)
            answers = asyncio.create_task(_pass_on(engine_reader, writer))
            try:
                await self._listen(reader, engine_writer)
            finally:
                answers.cancel()
                engine_writer.close()
        writer.close()

    async def _listen(self, reader: asyncio.StreamReader, engine: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
            sender = ID.search(head)
            if sender is not None and ACTS.match(head) and not ASKING.search(body):
                self.acts.append(Act(monotonic(), sender["daemon"].decode()))
            engine.write(head + body)
            await engine.drain()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(1 << 16):
            writer.write(chunk)
            await writer.drain()
        writer.close()
