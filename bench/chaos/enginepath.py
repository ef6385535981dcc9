"""The daemon's way to its engine, and nobody else's: a server that passes calls on, and lies when it is told to."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from enum import StrEnum, auto
from random import Random

import aiohttp
from aiohttp import web

# Of one connection, not of what is said over it (RFC 9110, 7.6.1), and what is computed anew.
DROPPED = frozenset(
    {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "content-encoding"}
)
GARBAGE = (
    b"",
    b"{",
    b"\xff\xfe\x00",
    b"[]",
    b"null",
    b'"yes"',
    b"{}",
    b"<html>502</html>",
    b'{"data": [{}]}',
)
STATUSES = (500, 502, 503, 404, 429)
COUNT = re.compile(rb"(?<=[ :])\d+(\.\d+)?(?=[\n,}\]])")
LIES = (b"0", b"-1", b"999999999", b"NaN")


class Manner(StrEnum):
    """How calls are answered. `SILENT`: never; `RESET`: the connection breaks off; `FAILING`: with an error;
    `GARBAGE`: with what is no answer, though the engine did what was asked; `CUT`: with half of it; `LYING`: with
    other numbers."""

    HONEST = auto()
    SILENT = auto()
    RESET = auto()
    FAILING = auto()
    GARBAGE = auto()
    CUT = auto()
    LYING = auto()


class EnginePath:
    """Stands at `url` before the engine at `to`. In answers, `renamed` names take the place of the engine's own.

    `spoilt` counts the calls that weren't answered as the engine would, `failed` those that the engine didn't answer;
    for `waiting` ones it hasn't answered yet.
    """

    def __init__(self, to: str, renamed: Mapping[str, str], seed: int) -> None:
        self.manner = Manner.HONEST
        self.url = ""
        self.spoilt = 0
        self.failed = 0
        self.waiting = 0
        self._to = to
        self._renamed = {name.encode(): other.encode() for name, other in renamed.items()}
        self._random = Random(seed)
        self._runner: web.AppRunner | None = None
        self._client: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Listen at a free port."""
        app = web.Application(client_max_size=0)
        app.router.add_route("*", "/{path:.*}", self._answer)
        # A call that its client gives up is given up here, and so at the engine.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self._client = aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=None), auto_decompress=False
        )

    async def close(self) -> None:
        """Break off all calls."""
        if self._runner is not None:
            await self._runner.cleanup()
        if self._client is not None:
            await self._client.close()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.spoilt += self.manner is not Manner.HONEST
        match self.manner:
            case Manner.SILENT:
                await asyncio.Event().wait()
            case Manner.RESET:
                return self._reset(request)
            case Manner.FAILING:
                status = self._random.choice(STATUSES)
                return web.json_response({"error": {"message": "not today", "code": status}}, status=status)
        self.waiting += 1
        try:
            status, headers, content = await self._ask(request)
        except (aiohttp.ClientError, OSError):
            self.failed += 1
            return self._reset(request)
        finally:
            self.waiting -= 1
        match self.manner:
            case Manner.SILENT:
                await asyncio.Event().wait()
            case Manner.GARBAGE:
                content = self._random.choice(GARBAGE)
            case Manner.LYING:
                content = COUNT.sub(lambda _: self._random.choice(LIES), content)
            case Manner.CUT:
                return await self._cut(request, status, headers, content)
        return web.Response(status=status, headers=headers, body=content)

    async def _ask(self, request: web.Request) -> tuple[int, dict[str, str], bytes]:
        assert self._client is not None
        headers = {name: value for name, value in request.headers.items() if name.lower() not in DROPPED}
        async with self._client.request(
            request.method, f"{self._to}{request.path_qs}", headers=headers, data=await request.read()
        ) as answer:
            content = await answer.read()
            for name, other in self._renamed.items():
                content = content.replace(name, other)
            told = {name: value for name, value in answer.headers.items() if name.lower() not in DROPPED}
            return answer.status, told, content

    def _reset(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=502)

    async def _cut(
        self, request: web.Request, status: int, headers: Mapping[str, str], content: bytes
    ) -> web.StreamResponse:
        answer = web.StreamResponse(status=status, headers=headers)
        answer.content_length = len(content) or 1
        await answer.prepare(request)
        await answer.write(content[: len(content) // 2])
        if request.transport is not None:
            request.transport.close()
        return answer
