"""`python -m bench.gateway.paced PORT`: a server that streams chunks at a fixed pace and costs next to nothing.

It answers a request for a stream by server-sent events, each with the moment of its sending: the system's monotonic
clock in nanoseconds, which all processes share. What the daemon asks of an engine is answered as the emulator did once.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
import urllib.request
from contextlib import suppress

from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer

CHUNKS_PER_SECOND = 10
ASKED = ("/health", "/version", "/v1/models", "/metrics", "/load", "/kv_event_sources")
NOT_FOUND = b'{"detail":"Not Found"}'
COMPLETIONS = "/v1/completions"
HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
CHUNKS = re.compile(rb'"max_tokens": ?(\d+)')


class Paced(asyncio.Protocol):
    """One connection: a stream after the other."""

    def __init__(self, known: dict[str, bytes]) -> None:
        self._known = known
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep where answers go."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop streaming to nobody."""
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Answer a request once it is complete."""
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not end or len(body) < (int(length[1]) if length else 0):
            return
        self._received = b""
        assert self._transport is not None
        if b'"stream"' not in body:
            answer = self._known.get(head.split(b" ")[1].decode())
            status = b"404 Not Found" if answer is None else b"200 OK"
            answer = NOT_FOUND if answer is None else answer
            self._transport.write(
                b"HTTP/1.1 %b\r\ncontent-length: %d\r\n\r\n%b" % (status, len(answer), answer)
            )
            return
        chunks = CHUNKS.search(body)
        self._transport.write(HEAD)
        self._say(int(chunks[1]) if chunks else 1, asyncio.get_running_loop().time())

    def _say(self, left: int, at: float) -> None:
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        if not left:
            self._transport.write(b"0\r\n\r\n")
            return
        event = (
            b'data: {"id":"chatcmpl-0123456789abcdef0123456789abcdef","object":"chat.completion.chunk","created":1,'
            b'"model":"base","choices":[{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}],'
            b'"sent":%d}\n\n' % time.monotonic_ns()
        )
        self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))
        after = at + 1 / CHUNKS_PER_SECOND
        self._timer = loop.call_at(after, self._say, left - 1, after)


def known_answers() -> dict[str, bytes]:
    """Return what an emulated engine says of itself, by path."""
    known = {}
    with EmulatorServer(EmulatorConfig()) as emulator:
        for path in ASKED:
            with urllib.request.urlopen(emulator.url + path) as answer:
                known[path] = answer.read()
        one = urllib.request.Request(emulator.url + COMPLETIONS, b'{"prompt": [1], "max_tokens": 1}')
        with urllib.request.urlopen(one) as answer:
            known[COMPLETIONS] = answer.read()
    return known


async def serve(port: int, known: dict[str, bytes]) -> None:
    """Serve until cancelled."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Paced(known), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(int(sys.argv[1]), known_answers()))
