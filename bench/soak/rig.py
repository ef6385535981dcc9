"""The processes of a soak: engines, the daemon beside them, and who speaks to it."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import msgspec

from bench.rig.daemon import DaemonProcess
from bench.rig.process import free_port
from bench.soak.speak import Said, Script

ENGINES = 2
BLOCKS_PER_EVENT = 0.03
FEWEST_BLOCKS = 32
"""Per event a second an engine has so many blocks: about half of what the prompts take that are asked of it."""
BLOCK_TOKENS = 16
MODEL_TOKENS = 256
TIME_SCALE = 0.1
"""The emulated engines are ten times as fast as the cost model's CPU: that leaves them time to prefetch in."""
START_SECONDS = 30.0
POLL = 0.1


class SoakFailed(RuntimeError):
    """A part of the soak ended before its time."""


class WatchedDaemon(DaemonProcess):
    """`scalesimd serve` beside several engines, named `engine0` and so on, in a process that tells of itself."""

    def __init__(self, folder: Path, engines: Sequence[str]) -> None:
        super().__init__(folder, "")
        self._told = folder / "watched.jsonl"
        self._command[:1] = [sys.executable, "-m", "bench.soak.watched", str(self._told)]
        named = [{"kind": "vllm", "url": url, "name": f"engine{at}"} for at, url in enumerate(engines)]
        self._env["SCALESIM_ENGINES"] = json.dumps(named)
        self.valkey = folder / "valkey" / "valkey.sock"

    @property
    def pid(self) -> int:
        """The daemon's own process."""
        return int(self.pids()[0])

    @property
    def valkey_pid(self) -> int:
        """Its Valkey's."""
        return int(self.pids()[1])

    async def ask(self) -> dict[str, float]:
        """Return what the process tells of itself now: see `bench.soak.watched`."""
        before = self._lines()
        self.signal(signal.SIGUSR1)
        async with asyncio.timeout(START_SECONDS):
            while len(lines := self._lines()) == len(before):  # noqa: ASYNC110  # a file tells nobody
                await asyncio.sleep(POLL / 10)
        told: dict[str, float] = json.loads(lines[-1])
        return told

    def trace(self) -> None:
        """Let it say where memory was taken, if it notes that."""
        self.signal(signal.SIGUSR2)

    def _lines(self) -> list[str]:
        return self._told.read_text().splitlines() if self._told.exists() else []


@asynccontextmanager
async def engines(folder: Path, rate: float) -> AsyncIterator[dict[str, int]]:
    """Run emulated engines for so many events a second; yield their processes by base URL."""
    urls, processes = [], []
    try:
        for number in range(ENGINES):
            port = free_port()
            flags = {
                "port": port,
                "blocks": max(FEWEST_BLOCKS, round(BLOCKS_PER_EVENT * rate)),
                "block-size": BLOCK_TOKENS,
                "max-model-len": MODEL_TOKENS,
                "time-scale": TIME_SCALE,
                "endpoint": f"ipc://{folder}/kv{number}",
                "replay-endpoint": f"ipc://{folder}/replay{number}",
            }
            command = [part for name, value in flags.items() for part in (f"--{name}", str(value))]
            processes.append(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "scalesim_adapters.emulator", *command),
                    stderr=asyncio.subprocess.DEVNULL,
                )
            )
            urls.append(f"http://127.0.0.1:{port}")
        for url in urls:
            await _healthy(url)
        yield {url: process.pid for url, process in zip(urls, processes, strict=True)}
    finally:
        for process in processes:
            if process.returncode is None:
                process.terminate()
            await process.wait()


async def _healthy(url: str) -> None:
    async with asyncio.timeout(START_SECONDS), httpx.AsyncClient() as client:
        while True:
            try:
                (await client.get(f"{url}/health")).raise_for_status()
                return
            except httpx.HTTPError:
                await asyncio.sleep(POLL)


@asynccontextmanager
async def daemon(folder: Path, urls: Sequence[str]) -> AsyncIterator[WatchedDaemon]:
    """Run the daemon; yield it once it knows what its engines hold."""
    process = WatchedDaemon(folder, urls)
    await asyncio.to_thread(process.start)
    try:
        async with asyncio.timeout(START_SECONDS), httpx.AsyncClient(base_url=process.api) as api:
            while not all(one["known"] for one in (await api.get("/v1/engines")).json()["engines"]):  # noqa: ASYNC110  # it can only be asked
                await asyncio.sleep(POLL)
        yield process
    finally:
        # What it is at may take it a while on a machine that can't keep up; then it is ended.
        with suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.stop)


class Speaker:
    """The process that speaks. `said` is what it told last."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.said = Said()
        self.pid = process.pid
        self._process = process
        self._held = asyncio.Event()
        self._ended = asyncio.Event()

    async def listen(self) -> None:
        """Hear it until it ends. Raises `SoakFailed` where that is before its time."""
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.said = msgspec.json.decode(line, type=Said)
            if self.said.held:
                self._held.set()
            if self.said.ended:
                self._ended.set()
                return
        raise SoakFailed("who speaks to the daemon has ended")

    async def hold(self) -> None:
        """Have it ask the engines nothing; return once nothing runs there."""
        self._held.clear()
        self._tell("hold")
        await self._held.wait()

    def go(self) -> None:
        """Have it ask the engines again."""
        self._tell("go")

    async def end(self) -> Said:
        """Have it end all streams; return its final counts."""
        self._tell("end")
        await self._ended.wait()
        return self.said

    def _tell(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())


@asynccontextmanager
async def speaking(script: Script) -> AsyncIterator[Speaker]:
    """Run who speaks; the context ends with it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.soak.speak", msgspec.json.encode(script).decode()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Speaker(process)
    finally:
        if process.returncode is None:
            assert process.stdin is not None
            process.stdin.close()
            try:
                async with asyncio.timeout(START_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
