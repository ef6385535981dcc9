"""All that one schedule plays in: a store, two engines and three daemons, each a host of its own."""

from __future__ import annotations

import asyncio
import json
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from time import monotonic, time
from typing import Any

import httpx
from redis.exceptions import RedisError

from bench.chaos.stores import Valkey
from bench.fleet.judge import Blow, Held
from bench.fleet.net import Network
from bench.fleet.schedule import DAEMONS, ENGINES, LEASE_SECONDS, Schedule
from bench.rig.daemon import DaemonProcess
from scalesim_daemon.fleet.lease_store import key_of

PORT = 8000
ASK_SECONDS = 2.0
LOOK_SECONDS = 0.05
TICK_SECONDS = 0.02


class World:
    """What runs while `open` does. `folder` is short, as sockets' paths must be."""

    def __init__(self, schedule: Schedule, folder: Path) -> None:
        network = Network()
        self.network = network
        self.schedule = schedule
        self.folder = folder
        self.hosts = {name: network.host(name) for name in ("store", *ENGINES, *DAEMONS)}
        store = self.hosts["store"]
        self.store = Valkey(folder / "valkey", store.address, store.command)
        self.engines = {name: f"http://{self.hosts[name].address}:{PORT}" for name in ENGINES}
        self.daemons: dict[str, DaemonProcess] = {}
        self.blows: list[Blow] = []
        self.leases: dict[str, dict[int, Held]] = {name: {} for name in ENGINES}
        self.exits: list[str] = []
        """Daemons that have ended by themselves."""
        self.held_up = 0.0
        """The longest that this process itself was late, in seconds: a machine with other work gives no better."""
        token = secrets.token_hex(16)
        self.client = httpx.AsyncClient(limits=httpx.Limits(max_keepalive_connections=0), timeout=ASK_SECONDS)
        self._token = token
        self._meant_to_run: set[str] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Start everything, and wait until the daemons are ready. What is left ends with this process's namespaces."""
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self.client.aclose)
            stack.callback(self.store.kill)
            await self.store.start()
            for name in ENGINES:
                stack.push_async_callback(_killed, await self._engine(name))
            for name in DAEMONS:
                self.daemons[name] = self._daemon(name)
                stack.callback(self.kill, name)
                self.launch(name)
            await asyncio.gather(*map(self.ready, DAEMONS), *map(self._serving, ENGINES))
            watching = [
                asyncio.create_task(work) for work in (self._supervise(), self._look(), self._watch())
            ]
            try:
                yield
            finally:
                for task in watching:
                    task.cancel()
                await asyncio.gather(*watching, return_exceptions=True)

    async def _engine(self, name: str) -> asyncio.subprocess.Process:
        command = (sys.executable, "-m", "bench.fleet.engine", str(PORT), str(self.acts(name)))
        with (self.folder / f"{name}.log").open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *self.hosts[name].command, *command, stdout=log, stderr=log
            )

    def _daemon(self, name: str) -> DaemonProcess:
        (self.folder / name).mkdir()
        engines = [
            {"name": engine, "url": self.engines[engine], "standby": standby}
            for engine, standby in self.schedule.engines(name).items()
        ]
        host = self.hosts[name]
        environment = {
            "SCALESIM_ENGINES": json.dumps(engines),
            "SCALESIM_REDIS__URL": self.store.url,
            "SCALESIM_FLEET__ENABLED": "true",
            "SCALESIM_FLEET__NAME": name,
            "SCALESIM_FLEET__LEASE_SECONDS": str(LEASE_SECONDS),
            # Calls are announced to one daemon, and not always before the others see them: nobody is a stranger here.
            "SCALESIM_PLANNER__QUIET_SHARE": "1",
            "SCALESIM_API__HOST": host.address,
            "SCALESIM_API__ADMIN_TOKEN": self._token,
        }
        return DaemonProcess(
            self.folder / name,
            "http://unused",
            host=host.address,
            before=host.command,
            environment=environment,
        )

    def acts(self, engine: str) -> Path:
        """Return the file of an engine's acts."""
        return self.folder / f"{engine}.acts"

    async def agents(self, daemon: str, simulation: str) -> dict[str, Any]:
        """Return the agents of a simulation as a daemon knows them, by key. Raises `httpx.HTTPError`."""
        answer = await self.client.get(
            f"{self.daemons[daemon].api}/v1/agents",
            params={"simulation": simulation, "limit": 500},
            headers={"authorization": f"Bearer {self._token}"},
        )
        return {agent["key"]: agent for agent in answer.raise_for_status().json()["agents"]}

    # What the schedule does

    @contextmanager
    def blow(self, *daemons: str, engine: str = "", leaves: bool = True) -> Iterator[None]:
        """Note that daemons are struck as long as the block lasts."""
        begin = monotonic()
        try:
            yield
        finally:
            self.blows += [Blow(daemon, engine, begin, monotonic(), leaves) for daemon in daemons]

    def launch(self, daemon: str) -> None:
        """Start a daemon without waiting."""
        self._meant_to_run.add(daemon)
        self.daemons[daemon].launch()

    def kill(self, daemon: str) -> None:
        """End a daemon as a crash would."""
        self._meant_to_run.discard(daemon)
        if self.daemons[daemon].running:
            self.daemons[daemon].kill()

    def freeze(self, daemon: str, *, frozen: bool) -> None:
        """Let a daemon stand still, or go on."""
        if self.daemons[daemon].running:
            self.daemons[daemon].signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    async def ready(self, daemon: str) -> None:
        """Wait until a daemon answers."""
        await self._answers(f"{self.daemons[daemon].api}/health")

    async def _serving(self, engine: str) -> None:
        await self._answers(f"{self.engines[engine]}/health")

    async def _answers(self, url: str) -> None:
        while True:
            with suppress(httpx.HTTPError):
                if (await self.client.get(url)).is_success:
                    return
            await asyncio.sleep(LOOK_SECONDS)

    # What is watched

    async def _supervise(self) -> None:
        """Start daemons again that ended by themselves, as a supervisor would."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            for name in list(self._meant_to_run):
                if not self.daemons[name].running:
                    self.exits.append(f"{name} ended by itself: {_last_words(self.daemons[name].log)}")
                    self.launch(name)

    async def _look(self) -> None:
        """Note the leases that the store has."""
        async with self.store.observer() as client:
            while True:
                for name, known in self.leases.items():
                    with suppress(RedisError, OSError):
                        owner, token, since = await client.hmget(
                            key_of(name, "lease"), "owner", "token", "since"
                        )
                        if owner and int(token) not in known:
                            taken = int(since) / 1000 - time() + monotonic()
                            known[int(token)] = Held(int(token), owner.partition("/")[0], taken)
                await asyncio.sleep(LOOK_SECONDS)

    async def _watch(self) -> None:
        """Note how late this process gets its turns."""
        while True:
            due = monotonic() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self.held_up = max(self.held_up, monotonic() - due)


async def _killed(process: asyncio.subprocess.Process) -> None:
    process.kill()
    await process.wait()


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
