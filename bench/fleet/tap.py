"""Stands before an engine and notes who sends it what."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from bench.fleet.relay import Relay

ID = re.compile(
    rb"^x-request-id: *scalesim-(?P<daemon>[A-Za-z0-9]+)-[^\r]*?(?:-t(?P<token>\d+))?-[0-9a-f]{16}\r",
    re.IGNORECASE | re.MULTILINE,
)
LENGTH = re.compile(rb"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)
ACTS = re.compile(rb"POST /v1/(completions|load_lora_adapter|unload_lora_adapter) ")
# By a prompt of one token a daemon that has just found an engine learns what its answers tell.
ASKING = re.compile(rb'"prompt":\[\d+\]')


class Act(NamedTuple):
    """A request by which a daemon changes what an engine holds, `at` a monotonic time in seconds, under the fencing
    token that it named."""

    at: float
    daemon: str
    token: int | None


class Tap(Relay):
    """A proxy before the engine at `to`, which passes whole requests on as they come. Daemons are told apart by what
    their requests' ids begin with. `noted` is given each act, too."""

    def __init__(self, to: int, noted: Callable[[Act], None] | None = None) -> None:
        super().__init__(to)
        self.acts: list[Act] = []
        self._noted = noted

    @property
    def url(self) -> str:
        """Where daemons find the engine."""
        return f"http://127.0.0.1:{self.port}"

    def of(self, daemon: str) -> list[Act]:
        """Return the acts of one daemon."""
        return [act for act in self.acts if act.daemon == daemon]

    async def there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass requests on one by one."""
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = LENGTH.search(head)
            body = await reader.readexactly(int(length[1])) if length else b""
            if ACTS.match(head) and not ASKING.search(body):
                self._note(head)
            writer.write(head + body)
            await writer.drain()

    def _note(self, head: bytes) -> None:
        sender = ID.search(head)
        if sender is None:
            return
        token = sender["token"]
        act = Act(monotonic(), sender["daemon"].decode(), None if token is None else int(token))
        self.acts.append(act)
        if self._noted is not None:
            self._noted(act)
