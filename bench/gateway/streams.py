"""Many streams at once, read as they come, and how late each chunk was."""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from dataclasses import dataclass, field

from bench.gateway.paced import CHUNKS_PER_SECOND

SENT = re.compile(rb'"sent":(\d+)')


@dataclass(slots=True)
class Times:
    """Milliseconds from a request to its first chunk, and from the sending of each later chunk to its arrival."""

    first: list[float] = field(default_factory=list)
    chunks: list[float] = field(default_factory=list)

    def add(self, other: Times) -> None:
        """Take in what was measured elsewhere."""
        self.first += other.first
        self.chunks += other.chunks


class _Stream(asyncio.Protocol):
    """One connection with one request. `done` is set when its last chunk is there."""

    def __init__(self, request: bytes, expected: int, times: Times) -> None:
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._left = expected
        self._expected = expected
        self._times = times
        self._transport: asyncio.Transport | None = None
        self._asked_at = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._asked_at = time.monotonic_ns()
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        for sent in SENT.findall(data):
            if self._left == self._expected:
                self._times.first.append((now - self._asked_at) / 1e6)
            else:
                self._times.chunks.append((now - int(sent)) / 1e6)
            self._left -= 1
        if not self._left and not self.done.done():
            self.done.set_result(None)
            assert self._transport is not None
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(ConnectionError(f"a stream broke off: {exc}"))


async def stream_all(port: int, streams: int, seconds: float, seed: int) -> Times:
    """Run `streams` streams of so many seconds on the server at `port`, begun at random moments of a second."""
    times, rng = Times(), random.Random(seed)
    delays = [rng.random() for _ in range(streams)]
    chunks = int(seconds * CHUNKS_PER_SECOND)
    await asyncio.gather(*(_one(port, number, delay, chunks, times) for number, delay in enumerate(delays)))
    return times


async def _one(port: int, number: int, delay: float, chunks: int, times: Times) -> None:
    await asyncio.sleep(delay)
    body = json.dumps(
        {
            "model": "base",
            "messages": [{"role": "user", "content": f"{number} " + "what now? " * 100}],
            "max_tokens": chunks,
            "stream": True,
            "user": f"a{number}",
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_connection(
        lambda: _Stream(head.encode() + body, chunks, times), "127.0.0.1", port
    )
    await stream.done
