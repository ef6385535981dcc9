"""ZeroMQ connections to the KV event feed of one engine process: the live stream, and replay.

Messages are `[topic, seq (8 bytes, big-endian), payload]`. A replay is asked for with `[b"", first seq]` over
a DEALER and answered by `[b"", topic, seq, payload]` each, then by one whose seq is -1
(`vllm/distributed/kv_events.py`, 0.32; `sglang/srt/disaggregation/kv_events.py`, 0.5.23).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

from scalesim_adapters.base import Unsupported

END = b"\xff" * 8
# Without it a host that vanishes without a word would look like a quiet engine.
HEARTBEAT_MS = 5000
WILDCARDS = ("*", "0.0.0.0", "::", "[::]")  # nosec B104  # where engines bind


@dataclass(frozen=True, slots=True)
class Source:
    """Where one engine process publishes, as we can reach it. `incarnation` is that of the process."""

    endpoint: str
    replay_endpoint: str | None
    incarnation: str


@dataclass(frozen=True, slots=True)
class Message:
    """One batch of events and its number, counted from 0 at the engine's start."""

    seq: int
    payload: bytes


class LinkLost(Exception):
    """The connection ended, or was never made."""


def reachable_form(endpoint: str, url: str) -> str:
    """Return the address to connect to, given where the engine binds: a wildcard becomes the host of
    `url`."""
    scheme, _, rest = endpoint.partition("://")
    if scheme != "tcp":
        return endpoint
    host, _, port = rest.rpartition(":")
    if host not in WILDCARDS:
        return endpoint
    name = urlsplit(url).hostname or "127.0.0.1"
    return f"tcp://{f'[{name}]' if ':' in name else name}:{port}"


async def listens(endpoint: str, *, within: float) -> bool:
    """Tell whether somebody listens at an endpoint."""
    scheme, _, rest = endpoint.partition("://")
    if scheme == "ipc":
        return await asyncio.to_thread(Path(rest).is_socket)
    host, _, port = rest.rpartition(":")
    try:
        async with asyncio.timeout(within):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, ValueError, TimeoutError):
        return False
    writer.close()
    return True


async def find_listener(
    find: Callable[[], Awaitable[Source]], remedy: str, *, within: float
) -> tuple[str | None, bool]:
    """Return why the source that `find` returns can't be heard, if so, and whether it can be replayed. `remedy` is what
    to do where nobody listens; that of `find` is in the `Unsupported` that it raises."""
    try:
        source = await find()
    except Unsupported as error:
        return str(error), False
    if not await listens(source.endpoint, within=within):
        return f"nobody listens at {source.endpoint} as seen from here: {remedy}", False
    replay = source.replay_endpoint
    return None, replay is not None and await listens(replay, within=within)


@contextlib.contextmanager
def opened_context() -> Iterator[zmq.asyncio.Context]:
    """Yield what sockets are opened in, its threads started: ZeroMQ ends a process that has no file left for them."""
    context = zmq.asyncio.Context()
    try:
        context.socket(zmq.PAIR).close()
        yield context
    finally:
        context.destroy(linger=0)


class Link:
    """A subscription to one source. It ends itself with `LinkLost` as soon as the connection does: no silent
    reconnect. Raises `LinkLost` where no socket can be opened."""

    def __init__(self, context: zmq.asyncio.Context, source: Source) -> None:
        self._context = context
        self._source = source
        try:
            self._feed = context.socket(zmq.SUB)
        except zmq.ZMQError as error:
            raise LinkLost(f"{source.endpoint} can't be listened to: {error}") from error
        self._feed.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        self._feed.setsockopt(zmq.RCVHWM, 0)
        self._feed.subscribe(b"")
        try:
            events = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
            self._monitor = self._feed.get_monitor_socket(events)
        except zmq.ZMQError as error:
            self._feed.close()
            raise LinkLost(f"{source.endpoint} can't be watched: {error}") from error

    async def __aenter__(self) -> Link:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._feed.disable_monitor()
        self._monitor.close(linger=0)
        self._feed.close(linger=0)

    async def open(self, *, within: float) -> None:
        """Connect. Raises `LinkLost` where that takes longer than `within` seconds."""
        try:
            async with asyncio.timeout(within):
                self._feed.connect(self._source.endpoint)
                await self._next_change()
        except (TimeoutError, zmq.ZMQError) as error:
            raise LinkLost(f"no connection to {self._source.endpoint}") from error

    async def receive(self, *, within: float) -> list[Message]:
        """Return what has come, waiting up to `within` seconds for the first. Raises `LinkLost`."""
        poller = zmq.asyncio.Poller()
        poller.register(self._feed, zmq.POLLIN)
        poller.register(self._monitor, zmq.POLLIN)
        await poller.poll(int(within * 1000))
        messages = await self._waiting()
        # Looked at last: after a reconnection behind our back the messages could be another process's.
        if await self._monitor.poll(0):
            await self._next_change()
        return messages

    async def _waiting(self, limit: int = 1000) -> list[Message]:
        messages: list[Message] = []
        with contextlib.suppress(zmq.Again):
            while len(messages) < limit:
                messages.append(_message(await self._feed.recv_multipart(flags=zmq.NOBLOCK)))
        return messages

    async def _next_change(self) -> None:
        change = await recv_monitor_message(self._monitor)
        if change["event"] != zmq.EVENT_HANDSHAKE_SUCCEEDED:
            raise LinkLost(f"{self._source.endpoint} closed the connection")

    async def replay(self, first: int, *, within: float) -> AsyncIterator[Message]:
        """Yield what the engine still has from number `first` on; ends early where it is silent for `within`
        seconds."""
        if self._source.replay_endpoint is None:
            return
        try:
            asking = self._context.socket(zmq.DEALER)
        except zmq.ZMQError as error:
            raise LinkLost(f"{self._source.replay_endpoint} can't be asked: {error}") from error
        with asking:
            asking.setsockopt(zmq.LINGER, 0)
            try:
                asking.connect(self._source.replay_endpoint)
            except zmq.ZMQError as error:
                raise LinkLost(f"{self._source.replay_endpoint}: {error}") from error
            await asking.send_multipart([b"", first.to_bytes(8, "big")])
            while await asking.poll(int(within * 1000)):
                frames = (await asking.recv_multipart())[1:]
                if frames[1:2] == [END]:
                    return
                yield _message(frames)


def _message(frames: list[bytes]) -> Message:
    if len(frames) != 3:
        raise LinkLost(f"a message of {len(frames)} frames is no KV event")
    return Message(int.from_bytes(frames[1], "big"), frames[2])
