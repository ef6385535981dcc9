"""Daemons in this process, and a bare reader of the same feed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import thread_time
from typing import Any

import msgspec
import zmq

from bench.daemon.said import SIMULATION, opening
from scalesim_client.codec import decode
from scalesim_daemon.app import running
from scalesim_daemon.feed import Feed
from scalesim_daemon.logs import configure_logging
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.loras import LoraLibrary
from scalesim_daemon.setting_sources import load_settings
from scalesim_daemon.settings import RunMode, Settings


def settings(folder: Path, **more: Any) -> Settings:
    """Return the defaults, but that everything lies in a folder, and no line is logged of what is as it should be."""
    told: dict[str, Any] = {
        "feed": {"bind": f"ipc://{folder}/feed"},
        "broadcast": {"bind": f"ipc://{folder}/dues"},
        "api": {"port": 0},
        "redis": {"data_dir": str(folder / "valkey")},
        "loras": {"links_dir": str(folder / "links"), "staging_dir": str(folder / "staging")},
        "log": {"level": "warning"},
    }
    loaded = load_settings(None, told | more)
    configure_logging(loaded.log)
    return loaded


@asynccontextmanager
async def daemon(folder: Path, **more: Any) -> AsyncIterator[Sidecar]:
    """Run a whole daemon, as `scalesimd serve` does, with a stopwatch on its feed."""
    async with running(settings(folder, **more)) as sidecar:
        yield sidecar


@asynccontextmanager
async def reading(sidecar: Sidecar, endpoint: str) -> AsyncIterator[None]:
    """Give a daemon one more ROUTER, as its own one is, from now on: somebody may wait there already."""
    feed = Feed(sidecar, endpoint, ())
    task = asyncio.create_task(feed.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        feed.close()


def still(folder: Path) -> Sidecar:
    """Return the daemon's state and cycle without its sockets and its store: what one wants to hear is admitted, what
    one wants to happen is called. It plans, and does nothing of that."""
    told = settings(folder, redis={"enabled": False})
    return Sidecar(told, LoraLibrary.open(told.loras), None, RunMode.OBSERVE)


class Stopwatch:
    """Stands where a recording of the feed would be written: notes when the first message and when the last of
    `messages` is taken in."""

    def __init__(self, messages: int) -> None:
        self.done = asyncio.Event()
        self._left = messages
        self.began = 0.0
        self.ended = 0.0

    def message(self, topic: str, seq: int | None, raws: Sequence[object]) -> None:
        """One message is being taken in."""
        if not seq:
            self.began = thread_time()
        self._left -= 1
        if not self._left:
            self.ended = thread_time()
            self.done.set()

    @property
    def seconds(self) -> float:
        """CPU seconds of this thread from the first to the last."""
        return self.ended - self.began


def say(sidecar: Sidecar, payload: bytes, seq: int) -> None:
    """Have a message decoded and admitted, as a door does."""
    sidecar.admit(SIMULATION, seq, decode(payload)[1])


def open_stream(sidecar: Sidecar) -> None:
    """Have the simulation begin."""
    sidecar.admit(SIMULATION, 0, [opening().to_wire()])


def read_bare(endpoint: str, messages: int, then: Callable[[list[Any]], object] | None = None) -> float:
    """Receive so many messages at a ROUTER and decode each, and `then` do that with its events; return this
    thread's CPU seconds from the first to the last."""
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.LINGER, 0)
    read = msgspec.msgpack.decode
    try:
        socket.bind(endpoint)
        read(socket.recv_multipart()[-1])
        began = thread_time()
        if then is None:
            for _ in range(messages - 1):
                read(socket.recv_multipart()[-1])
        else:
            for _ in range(messages - 1):
                then(read(socket.recv_multipart()[-1])[1])
        return thread_time() - began
    finally:
        context.destroy(linger=0)
