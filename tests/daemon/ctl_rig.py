"""What the tests of `scalesimctl` share: a whole daemon in a thread, the command in this process or in its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import structlog
from typer.testing import CliRunner, Result

from scalesim_daemon.ctl.app import app
from scalesim_daemon.loop import Sidecar
from tests.daemon.live import daemon, until

STARTED_WITHIN = 20.0
ENDED_WITHIN = 50
# The argument of `memory.bound` for 2 blocks of the emulator's 32 tokens.
TOKENS = list(range(64))
ODD = "town/[red]odd[/red]/\x1b[31m.."
COMMAND = (
    "import sys; sys.argv[0] = 'scalesimctl'; from scalesim_daemon.commands import scalesimctl; scalesimctl()"
)


@dataclass(frozen=True, slots=True)
class Whole:
    """A daemon that runs in a thread of its own."""

    sidecar: Sidecar
    url: str

    def say(self, *events: dict[str, Any], token: str | None = None) -> None:
        """Let a simulation named town say something that is taken."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        answer = httpx.post(
            f"{self.url}/v1/events", json=[0, list(events)], params={"source": "town"}, headers=headers
        )
        assert answer.json()["accepted"] == len(events)


@contextmanager
def in_a_thread(folder: Path, *engines: str, **settings: Any) -> Iterator[Whole]:
    """Run a daemon whose engines answer."""
    loop, stop, ready = asyncio.new_event_loop(), asyncio.Event(), Event()
    started: list[Whole] = []

    async def serve() -> None:
        async with daemon(folder, *engines, **settings) as (sidecar, _):

            async def answered() -> bool:
                return all(driver.view.reachable for driver in sidecar.drivers.values())

            await until(answered)
            started.append(Whole(sidecar, sidecar.api_url))
            ready.set()
            await stop.wait()

    thread = Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(STARTED_WITHIN)
        yield started[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@contextmanager
def whole_daemon(folder: Path, *engines: str) -> Iterator[str]:
    """Run a daemon in a thread; yields its URL."""
    with in_a_thread(folder, *engines) as whole:
        yield whole.url


def populate(whole: Whole, token: str | None = None) -> None:
    """Let three agents act for 10, 11 and 12 steps, the first with a prefix, and a fourth with an odd name call now."""
    whole.say(
        {"type": "stream.opened", "simulation": "town", "source": "town", "incarnation": 1, "clock": "step"},
        *(
            {"type": "agent.activity_started", "agent": f"a{number}", "for": 10.0 + number}
            for number in range(3)
        ),
        {"type": "memory.bound", "agent": "a0", "token_ids": TOKENS},
        {"type": "agent.woken", "agent": ODD.removeprefix("town/")},
        token=token,
    )


def call(*arguments: str, env: Mapping[str, str | None] | None = None, **more: Any) -> Result:
    """Run the command in this process. A daemon's thread goes on logging while the command has the standard streams."""
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.__stderr__))
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "160", **(env or {})}, **more)


def start(*arguments: str, env: dict[str, str] | None = None, **streams: Any) -> subprocess.Popen[str]:
    """Start the command in a process of its own; what it prints is piped unless streams say otherwise."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments],
        env=environment(**(env or {})),
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},
    )


def environment(**more: str) -> dict[str, str]:
    """Return this process's variables without those that say how to print."""
    printing = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM")
    return {name: value for name, value in os.environ.items() if name not in printing} | more
