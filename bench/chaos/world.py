"""All that one schedule plays in: engine, stores, disks, the ways between them, and the daemon."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, Self

import httpx

from bench.chaos import disks
from bench.chaos.enginepath import EnginePath
from bench.chaos.engines import LORA_BYTES, SGLANG, Engine, alive, family
from bench.chaos.paths import Stream
from bench.chaos.schedule import EMBEDDED, GATEWAY, Schedule
from bench.chaos.shim import Shim
from bench.chaos.stores import Pair
from bench.rig.daemon import DaemonProcess
from bench.rig.process import free_port

STAGING_BYTES = 2 * LORA_BYTES + 50_000
TIER_BYTES = 1 << 20
RECORD_BYTES = 8 << 20
ASK_SECONDS = 5.0
WATCH_SECONDS = 0.1
REVIVE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Outage:
    """What the schedule itself keeps from answering, from `begin` to `end` on the monotonic clock, None while it
    lasts."""

    target: str
    begin: float
    end: float | None = None


class World:
    """As an asynchronous context manager: everything runs inside, and nothing is left after it.

    `engine` runs already. `folder` is short, as sockets' paths must be. Without a `library` the clock and the disk's
    speed can't be changed; `mounted` says whether disks of its own can be had.
    """

    def __init__(
        self, schedule: Schedule, folder: Path, engine: Engine, *, library: Path | None, mounted: bool
    ) -> None:
        self.schedule = schedule
        self.engine = engine
        self.outages: list[Outage] = []
        self.exits: list[str] = []
        self.left: list[int] = []
        """Processes of the daemon that outlive it."""
        self.lives = 1
        """How many processes the engine has been."""
        self.simulation = f"chaos{schedule.seed}"
        self.turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        """Whom a fault befalls is healed before the next one: a start may take longer than its fault was to last."""
        self.calling = 0
        """How many of the simulation's calls are under way."""
        self.disk, self.shm = folder / "disk", folder / "shm"
        self.pair = None if schedule.store == EMBEDDED else Pair(folder)
        self.feed_way = Stream(str(folder / "feed-way"), str(self.disk / "feed"), up=True)
        self.kv_way = Stream(str(folder / "kv-way"), str(engine.kv), down=True)
        self.replay_way = Stream(str(folder / "kvr-way"), str(engine.replay))
        renamed = {f"{engine.replay}": self.replay_way.listen, f'{engine.kv}"': f'{self.kv_way.listen}"'}
        if engine.kind == SGLANG:
            # Its flags stand in the answer as JSON within JSON.
            renamed[f'{engine.kv}\\"'] = f'{self.kv_way.listen}\\"'
        self.answers = EnginePath(engine.server.url, renamed, schedule.seed)
        self.shim: Shim | None = None
        self.daemon: DaemonProcess
        self.api = httpx.AsyncClient(timeout=ASK_SECONDS, limits=httpx.Limits(max_keepalive_connections=0))
        self._folder = folder
        self._library = library
        self._mounted = mounted
        self._gateway_port = free_port()
        self._meant_to_run = True
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._make_disks()
        if self.pair is not None:
            await self.pair.start()
            self._stack.push_async_callback(self.pair.close)
        for way in (self.feed_way, self.kv_way, self.replay_way, self.answers):
            await way.start()
            self._stack.push_async_callback(way.close)
        self.daemon = self._daemon()
        self.daemon.launch()
        self._stack.push_async_callback(self._end_daemon)
        watching = asyncio.create_task(self._supervise())
        self._stack.callback(watching.cancel)
        self._stack.push_async_callback(self.api.aclose)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def _make_disks(self) -> None:
        for folder, size in ((self.disk, disks.DISK_BYTES), (self.shm, disks.SHM_BYTES)):
            if self._mounted:
                disks.mount(folder, size)
                self._stack.callback(disks.unmount, folder)
            else:
                folder.mkdir()
        if self._library is not None:
            self.shim = Shim(self._library, self._folder / "control", self.disk)
            self._stack.callback(self.shim.close)

    def _daemon(self) -> DaemonProcess:
        environment = {
            "SCALESIM_LORAS__STAGING_DIR": str(self.shm / "staging"),
            # As much as can be written, so that a full disk is met.
            "SCALESIM_LOG__LEVEL": "debug",
            "SCALESIM_RECORD__PATH": str(self.disk / "recording"),
            "SCALESIM_RECORD__MAX_BYTES": str(RECORD_BYTES),
            **({} if self.pair is None else {"SCALESIM_REDIS__URL": self.pair.url}),
            **({} if self.shim is None else self.shim.environment),
        }
        return DaemonProcess(
            self.disk,
            self.answers.url,
            staging_bytes=STAGING_BYTES,
            gateway_port=self._gateway_port if self.schedule.through == GATEWAY else None,
            environment=environment,
            host_tier={"segment": str(self.shm / "tier"), "bytes": TIER_BYTES},
            **self.engine.settings,
        )

    # What the schedule does

    @contextmanager
    def outage(self, target: str) -> Iterator[None]:
        """Note that the schedule keeps `target` from answering while the block lasts."""
        begin = monotonic()
        self.outages.append(Outage(target, begin))
        try:
            yield
        finally:
            self.outages.remove(Outage(target, begin))
            self.outages.append(Outage(target, begin, monotonic()))

    def kill_daemon(self) -> None:
        """End it as a crash would; nobody starts it again until `revive_daemon`."""
        self._meant_to_run = False
        if self.daemon.running:
            self.daemon.kill()

    async def revive_daemon(self) -> None:
        """Start it, and wait until it answers."""
        self._meant_to_run = True
        self.daemon.launch()
        await self.answered()

    async def answered(self) -> None:
        """Wait until the daemon answers, and its gateway, where calls go through it, takes connections."""
        while True:
            with suppress(httpx.HTTPError, OSError):
                await self.api.get(f"{self.daemon.api}/health")
                if self.schedule.through == GATEWAY:
                    _, writer = await asyncio.open_connection("127.0.0.1", self._gateway_port)
                    writer.close()
                return
            await asyncio.sleep(WATCH_SECONDS)

    async def get(self, path: str, **query: str | int) -> Any:
        """Return what the daemon's API answers. Raises `httpx.HTTPError` and `ValueError`."""
        answer = await self.api.get(f"{self.daemon.api}{path}", params=query)
        return answer.raise_for_status().json()

    async def pin(self, agent: str, seconds: int) -> None:
        """Pin an agent, as an operator does. Raises `httpx.HTTPError`."""
        pinned = await self.api.put(f"{self.daemon.api}/v1/pins/{agent}", json={"seconds": seconds})
        pinned.raise_for_status()

    @property
    def store_url(self) -> str:
        """Where the bench itself reaches the daemon's store."""
        return f"unix://{self.disk}/valkey/valkey.sock" if self.pair is None else self.pair.primary.url

    async def _supervise(self) -> None:
        """Start the daemon again where it ended by itself, as a supervisor would; that it did is noted."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            if self._meant_to_run and not self.daemon.running:
                self.exits.append(self._last_words())
                await asyncio.sleep(REVIVE_SECONDS)
                if self._meant_to_run:
                    self.daemon.launch()

    def _last_words(self) -> str:
        lines = self.daemon.log.read_text(errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")

    async def _end_daemon(self) -> None:
        self._meant_to_run = False
        pids = family(int(self.daemon.pids()[0])) if self.daemon.running else []
        await asyncio.to_thread(self.daemon.stop)
        self.left = [pid for pid in pids if alive(pid)]
        if self.daemon.log.exists():
            kept = self._folder / "scalesimd.log"
            kept.write_bytes(self.daemon.log.read_bytes())
