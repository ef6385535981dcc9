"""A daemon, an emulated engine, and an example that plays before them, step by step."""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
import threading
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from scalesim_client import ClockKind, Publisher
from tests.daemon.live import daemon, emulator, until

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "integrations"
NEXT_STEP_WITHIN = 120.0


def python_of(name: str) -> Path:
    """Return the interpreter that has a simulation library; skips the test where its environment is missing."""
    environment = ROOT / ".envs" / name
    if not (environment / ".done").exists():
        pytest.skip(f"no environment with {name} here: make integration-{name}")
    return environment / "bin" / "python"


class Play:
    """A running example, and the daemon that hears it. `steps` yields the number of each step once it has been told;
    the example goes on after that."""

    def __init__(self, steps: AsyncIterator[int], api: httpx.AsyncClient) -> None:
        self.steps = steps
        self._api = api

    async def foresees(self, distances: Mapping[str, float]) -> None:
        """Wait until exactly these agents have a foreseen invocation, so far away: what was told is soon heard."""
        seen: dict[str, float] = {}

        async def holds() -> bool:
            nonlocal seen
            foreseen = [agent for agent in await self._agents() if agent["distance"] is not None]
            seen = {agent["key"].partition("/")[2]: agent["distance"] for agent in foreseen}
            return seen == pytest.approx(dict(distances))

        try:
            await until(holds)
        except AssertionError:
            assert seen == pytest.approx(dict(distances))

    async def learn(self, agents: Collection[str]) -> None:
        """Wait until the prefixes of exactly these agents are known: they come from two requests of the agent, by the
        engine's own events, which name the agent that the requests carried."""

        async def known() -> bool:
            learned = {agent["key"].partition("/")[2] for agent in await self._agents() if agent["engines"]}
            return learned == set(agents)

        await until(known)

    async def _agents(self) -> list[dict[str, Any]]:
        # A connection of its own: between two steps the server may close one that idles.
        answer = await self._api.get("/v1/agents", headers={"Connection": "close"})
        return list(answer.json()["agents"])


@asynccontextmanager
async def playing_here(
    folder: Path, example: str, simulation: str, clock: ClockKind, *, steps: int
) -> AsyncIterator[Play]:
    """Run an example in a thread of this process."""
    with emulator(folder) as engine:
        async with daemon(folder, engine.url) as (sidecar, api):

            async def heard() -> bool:
                return all(driver.view.known for driver in sidecar.drivers.values())

            # What is asked before the engine's events are heard teaches no prefix.
            await until(heard)
            publisher = Publisher(simulation, clock, address=sidecar.feed_address)
            told: asyncio.Queue[int] = asyncio.Queue()
            loop = asyncio.get_running_loop()
            go_on = threading.Semaphore(0)

            def after_step(step: int) -> None:
                publisher.flush(10)
                loop.call_soon_threadsafe(told.put_nowait, step)
                go_on.acquire()

            async def played() -> AsyncIterator[int]:
                for _ in range(steps):
                    async with asyncio.timeout(NEXT_STEP_WITHIN):
                        yield await told.get()
                    go_on.release()
                await task

            play = _load(example).play
            task = asyncio.create_task(
                asyncio.to_thread(play, publisher, f"{engine.url}/v1", steps, after_step)
            )
            try:
                yield Play(played(), api)
            finally:
                go_on.release(steps)
                await task
                await asyncio.to_thread(publisher.close)


@asynccontextmanager
async def playing_in(
    python: Path, folder: Path, example: str, *, steps: int, **engine: int
) -> AsyncIterator[Play]:
    """Run an example as a process of another interpreter, before an emulated engine that is as `engine` says."""
    log = folder / f"{example}.log"
    with emulator(folder, **engine) as server, log.open("wb") as errors:
        async with daemon(folder, server.url) as (sidecar, api):
            process = await asyncio.create_subprocess_exec(
                *(str(python), str(EXAMPLES / f"{example}.py"), "--pause"),
                *("--feed", sidecar.feed_address, "--engine", f"{server.url}/v1", "--steps", str(steps)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=1 << 24,
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT / "client")},
            )

            async def played() -> AsyncIterator[int]:
                assert process.stdin is not None
                for _ in range(steps):
                    yield await _said_step(process, log)
                    process.stdin.write(b"\n")
                assert await process.wait() == 0, log.read_text()

            try:
                yield Play(played(), api)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()


async def _said_step(process: asyncio.subprocess.Process, log: Path) -> int:
    assert process.stdout is not None
    async with asyncio.timeout(NEXT_STEP_WITHIN):
        async for line in process.stdout:
            word, _, number = line.decode().strip().partition(" ")
            if word == "step" and number.isdigit():
                return int(number)
    pytest.fail(f"the example ended early:\n{await asyncio.to_thread(log.read_text)}")


def _load(example: str) -> Any:
    sys.path.insert(0, str(EXAMPLES))
    try:
        return importlib.import_module(example)
    finally:
        sys.path.remove(str(EXAMPLES))
