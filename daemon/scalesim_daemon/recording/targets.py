"""Where a recording is sent again: a daemon's feed or its API, and an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from time import time
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlsplit

import httpx
import msgpack
import zmq
import zmq.asyncio

from scalesim_client.codec import encode, pack_frames, unpack_frames
from scalesim_client.events import StreamClosed, StreamOpened
from scalesim_client.tags import extra_body, extra_headers

ANSWER_SECONDS = 5.0
ENGINE_SECONDS = 600.0
MOST_REQUESTS = 256
OWN_SOURCE = "scalesimd-replay"
FIRST, LAST, CLOSING = 2**62, 2**62 + 1, 2**62 + 2


class Unreachable(Exception):
    """Nobody takes the recording at the address."""


class Target(Protocol):
    """What takes messages. `refused` says what it did not take, and why."""

    refused: list[str]

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def send(self, source: str, seq: int | None, events: Sequence[Any]) -> None:
        """Send one message; raises `ValueError` for what is none, `Unreachable` where nobody takes it."""
        ...

    async def finish(self) -> None:
        """Return when all that was sent has been taken."""
        ...


class FeedTarget:
    """A daemon's ROUTER, at a ZeroMQ endpoint. A source without numbering gets one: that door asks for it.

    A stream of our own, opened first and again at the end, shows that the daemon is there and has taken everything.
    """

    def __init__(self, address: str) -> None:
        self.refused: list[str] = []
        self._address = address
        self._last: dict[str, int] = {}
        self._incarnation = int(time() * 1000)
        self._finished = False

    async def __aenter__(self) -> Self:
        self._context = zmq.asyncio.Context()
        try:
            self._socket = self._context.socket(zmq.DEALER)
            self._socket.connect(self._address)
            await self._knock(FIRST)
        except BaseException as error:
            self._context.destroy(linger=0)
            if isinstance(error, zmq.ZMQError):
                raise Unreachable(f"{self._address} is no address of a feed: {error}") from None
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.destroy(linger=int(ANSWER_SECONDS * 1000) if self._finished else 0)

    async def send(self, source: str, seq: int | None, events: Sequence[Any]) -> None:
        """Send one message, and hear what the daemon has said meanwhile."""
        number = self._last.get(source, -1) + 1 if seq is None else seq
        try:
            await self._put(source, number, events)
        except ValueError as error:
            # What came as JSON may be longer in msgpack than a message may be.
            self.refused.append(str(error))
            return
        self._last[source] = max(self._last.get(source, -1), number)
        while await self._socket.poll(0):
            await self._hear()

    async def finish(self) -> None:
        """Return when the daemon has taken all that was sent."""
        await self._knock(LAST)
        await self._put(OWN_SOURCE, CLOSING, [StreamClosed()])
        self._finished = True

    async def _knock(self, seq: int) -> None:
        opened = StreamOpened(
            simulation=OWN_SOURCE, source=OWN_SOURCE, incarnation=self._incarnation, clock="step"
        )
        await self._put(OWN_SOURCE, seq, [opened])
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                while await self._hear() != seq:
                    pass
        except TimeoutError:
            raise Unreachable(f"no daemon answers at {self._address}") from None

    async def _put(self, source: str, seq: int, events: Sequence[Any]) -> None:
        frames = pack_frames(source, seq, encode(time(), events))
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._socket.send_multipart(frames)
        except TimeoutError:
            raise Unreachable(f"the daemon at {self._address} takes nothing any more") from None

    async def _hear(self) -> int:
        """Return the newest number that the daemon's next answer names."""
        control = msgpack.unpackb(unpack_frames(await self._socket.recv_multipart())[2])[1][0]
        if control.get("error"):
            self.refused.append(control["error"])
        return int(control["last_seq"])


class ApiTarget:
    """A daemon's POST /v1/events, at the API's URL."""

    def __init__(self, url: str) -> None:
        self.refused: list[str] = []
        self._url = url
        # The daemon is on this host: a proxy that the environment names can't reach it.
        self._client = httpx.AsyncClient(base_url=_checked(url), timeout=ANSWER_SECONDS, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def send(self, source: str, seq: int | None, events: Sequence[Any]) -> None:
        """Send one message, and note what of it was refused."""
        params: dict[str, str | int] = {"source": source} if seq is None else {"source": source, "seq": seq}
        content = encode(time(), events)
        try:
            answer = await self._client.post("/v1/events", params=params, content=content)
            said = answer.json()
        except httpx.HTTPError as error:
            raise Unreachable(
                f"no daemon answers at {self._url}: {str(error) or type(error).__name__}"
            ) from None
        except ValueError:
            raise Unreachable(f"{self._url} is no scalesimd of this version") from None
        try:
            if answer.status_code == httpx.codes.OK:
                self.refused += [f"{one['type']}: {one['reason']}" for one in said["refused"]]
            else:
                self.refused.append(str(said["detail"]))
        except (KeyError, TypeError):
            raise Unreachable(f"{self._url} is no scalesimd of this version") from None

    async def finish(self) -> None:
        """Every message was answered."""


class EngineTarget:
    """An engine or a gateway, at its URL: requests run side by side, as they did."""

    def __init__(self, url: str) -> None:
        self.sent = 0
        self.failed: list[str] = []
        self._client = httpx.AsyncClient(base_url=_checked(url), timeout=ENGINE_SECONDS)
        self._places = asyncio.Semaphore(MOST_REQUESTS)
        self._running: set[asyncio.Task[None]] = set()

    def send(self, agent: str | None, path: str, body: dict[str, Any]) -> None:
        """Start a request that names its agent, `<simulation>/<agent>`, as our client does. Raises `ValueError` for
        names that can't be."""
        simulation, separator, name = (agent or "").partition("/")
        tags = extra_body(simulation, name) if separator else {}
        headers = extra_headers(simulation, name) if separator else {}
        task = asyncio.get_running_loop().create_task(self._request(path, {**tags, **body}, headers))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        self.sent += 1

    async def finish(self) -> None:
        """Return when all requests have been answered."""
        await asyncio.gather(*self._running)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._client.aclose()

    async def _request(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> None:
        try:
            async with self._places:
                answer = await self._client.post(path, json=body, headers=headers)
        except (httpx.HTTPError, ValueError) as error:
            self.failed.append(f"{path}: {str(error) or type(error).__name__}")
            return
        if answer.is_error:
            self.failed.append(f"{path}: {answer.status_code} {answer.text[:200]}")


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Unreachable(f"{url!r} is no URL: write http://host:port")
    return url
