"""Two daemons beside one emulated engine, and a simulation that never lets them rest."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Any

import httpx

from bench.fleet.tap import Tap
from bench.fleet.way import Way
from bench.rig.daemon import DaemonProcess
from scalesim_adapters.emulator import EmulatorServer
from tests.daemon.live import emulator
from tests.daemon.stores import External

LEASE_SECONDS = 3.0
BLOCK = 32
PREFIX = 8 * BLOCK
WITHIN = 60.0
TICK_SECONDS = 0.02


@dataclass
class Fleet:
    """Daemons by name, the tap before their engine, their store and each one's way to it."""

    daemons: dict[str, DaemonProcess]
    tap: Tap
    engine: EmulatorServer
    store: External
    ways: dict[str, Way]
    clients: dict[str, httpx.AsyncClient]
    held_up: float = 0.0
    """The longest that this process itself was late, in seconds: a machine with other work gives no better."""

    async def started(self, name: str) -> None:
        await asyncio.to_thread(self.daemons[name].start)

    async def lease(self, name: str) -> dict[str, Any]:
        answer = await self.clients[name].get("/v1/engines")
        return dict(answer.json()["engines"][0]["lease"])

    async def acts(self, name: str, since: float = 0.0) -> float:
        """Wait until a daemon acts, and return when."""
        return await eventually(lambda: [act.at for act in self.tap.of(name) if act.at >= since])

    async def phase(self, name: str, phase: str, holder: str | None = None) -> dict[str, Any]:
        """Wait until a daemon stands so to the engine, and knows that `holder` drives it, where one is named."""
        deadline = monotonic() + WITHIN
        while (lease := await self.lease(name))["phase"] != phase or lease["holder"] != (
            holder or lease["holder"]
        ):
            assert monotonic() < deadline, lease
            await asyncio.sleep(0.02)
        return lease

    @property
    def two_leases(self) -> float:
        """What a takeover may take, on this machine."""
        return 2 * LEASE_SECONDS + 2 * self.held_up

    async def watch(self) -> None:
        """Note how late this process gets its turns."""
        while True:
            due = monotonic() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self.held_up = max(self.held_up, monotonic() - due)

    def turns(self) -> list[str]:
        """Who acted, one after the other."""
        names = [act.daemon for act in self.tap.acts]
        return [name for name, before in zip(names, [None, *names], strict=False) if name != before]

    async def keep_busy(self) -> None:
        """Announce one agent after another, each due before all others, to whoever listens."""
        for number in count():
            tokens = [(number * PREFIX + position) % 30_000 for position in range(PREFIX)]
            events = [
                {"type": "memory.bound", "agent": f"a{number}", "token_ids": tokens},
                {"type": "agent.activity_started", "agent": f"a{number}", "until": 100_000.0 - number},
            ]
            message = json.dumps([0.0, events])
            posts = [self._say(client, message) for client in self.clients.values()]
            await asyncio.gather(*posts)
            await asyncio.sleep(0.1)

    async def _say(self, client: httpx.AsyncClient, message: str) -> None:
        with suppress(httpx.HTTPError):  # It is down, or stands still.
            await client.post("/v1/events", params={"source": "village"}, content=message, timeout=0.5)


async def eventually(found: Callable[[], list[float]]) -> float:
    deadline = monotonic() + WITHIN
    while not (times := found()):
        assert monotonic() < deadline, "it never came"
        await asyncio.sleep(0.005)
    return times[0]


@asynccontextmanager
async def fleet(folder: Path, *names: str, **standby: bool) -> AsyncIterator[Fleet]:
    """Start a store and an engine, and prepare daemons, of which the first is started."""
    async with AsyncExitStack() as stack:
        store = External()
        await store.start()
        stack.push_async_callback(store.stop)
        engine = stack.enter_context(emulator(folder, blocks=40 * 8, max_num_batched_tokens=512))
        tap = await stack.enter_async_context(Tap(engine.port).open())
        daemons, clients, ways = {}, {}, {}
        for name in names:
            (folder / name).mkdir()
            config = folder / f"{name}.yaml"
            ways[name] = await stack.enter_async_context(Way(store.port).open())
            settings = {
                "redis": {"url": f"redis://127.0.0.1:{ways[name].port}/0"},
                "fleet": {"enabled": True, "name": name, "lease_seconds": LEASE_SECONDS},
            }
            config.write_text(json.dumps(settings))
            more = {"standby": True} if standby.get(name) else {}
            daemons[name] = DaemonProcess(folder / name, tap.url, config=config, name="engine", **more)
            stack.callback(daemons[name].stop)
            clients[name] = await stack.enter_async_context(httpx.AsyncClient(base_url=daemons[name].api))
        known = Fleet(daemons, tap, engine, store, ways, clients)
        await known.started(names[0])
        tasks = [asyncio.create_task(work) for work in (known.keep_busy(), known.watch())]
        try:
            yield known
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
