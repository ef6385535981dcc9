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
from scalesim_client.events import Event
from scalesim_daemon.app import running
from scalesim_daemon.collector import collected_seldom
from scalesim_daemon.feed import Feed
from scalesim_daemon.gate import Verdict
from scalesim_daemon.logs import configure_logging
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.loras import LoraLibrary
from scalesim_daemon.setting_sources import load_settings
from scalesim_daemon.settings import RunMode, Settings
from scalesim_daemon.wire import read_plain


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
    """Run a whole daemon, as `scalesimd serve` does."""
    async with running(settings(folder, **more)) as sidecar:
        with collected_seldom():
            yield sidecar


@asynccontextmanager
async def reading(watch: Stopwatch, endpoint: str) -> AsyncIterator[None]:
    """Give a daemon one more ROUTER, as its own one is, from now on: somebody may wait there already."""
    feed = Feed(watch, endpoint, ())  # type: ignore[arg-type]  # as much of a sidecar as a feed asks
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
    """Stands between a door and the daemon: notes when the first message and when the last of `messages` has been taken
    in, dues and all."""

    recorder = None

    def __init__(self, sidecar: Sidecar, messages: int) -> None:
        self.done = asyncio.Event()
        self.gate = sidecar.gate
        self._sidecar = sidecar
        self._left = messages
        self._began = 0.0
        self._ended = 0.0

    def admit(self, topic: str, seq: int | None, raws: Sequence[object], peer: bytes | None) -> Verdict:
        """Pass a message on of which the events are to be looked at one by one."""
        self._left -= 1
        return self._sidecar.admit(topic, seq, raws, peer)

    def admit_plain(
        self, topic: str, seq: int | None, events: Sequence[Event], peer: bytes | None
    ) -> Verdict:
        """Pass a plain message on."""
        self._left -= 1
        return self._sidecar.admit_plain(topic, seq, events, peer)

    def take_in(self) -> None:
        """Have all of it applied that has been passed on."""
        self._began = self._began or thread_time()
        self._sidecar.take_in()
        if not self._left:
            self._ended = thread_time()
            self.done.set()

    @property
    def seconds(self) -> float:
        """CPU seconds of this thread from the first to the last."""
        return self._ended - self._began


def say(sidecar: Sidecar, payload: bytes, seq: int) -> None:
    """Have a message decoded and admitted, as a door does."""
    plain = read_plain(payload)
    if plain is None:
        sidecar.admit(SIMULATION, seq, decode(payload)[1])
    else:
        sidecar.admit_plain(SIMULATION, seq, plain)
        sidecar.take_in()


def open_stream(sidecar: Sidecar) -> None:
    """Have the simulation begin."""
    sidecar.admit(SIMULATION, 0, [opening().to_wire()])


def read_bare(
    endpoint: str, messages: int, read: Callable[[bytes], object] = msgspec.msgpack.decode
) -> float:
    """Receive so many messages at a ROUTER and `read` each; return this thread's CPU seconds from the first to the
    last."""
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.LINGER, 0)
    try:
        socket.bind(endpoint)
        read(socket.recv_multipart()[-1])
        began = thread_time()
        for _ in range(messages - 1):
            read(socket.recv_multipart()[-1])
        return thread_time() - began
    finally:
        context.destroy(linger=0)
