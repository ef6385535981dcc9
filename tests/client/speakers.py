"""Publishers of all languages as subprocesses that say what a test tells them: `say` and `village` of each folder."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, Self

import pytest
import zmq
import zmq.asyncio

ROOT = Path(__file__).parents[2]
CLIENT = ROOT / "client"
WITHIN = 15.0
DEBIAN_CRATES = Path("/usr/share/cargo/registry")


@dataclass(frozen=True)
class Language:
    """How the publisher of one language is built (once) and run."""

    tools: tuple[str, ...]
    build: tuple[tuple[str, ...], ...]
    say: tuple[str, ...]
    village: tuple[str, ...] | None


def _cargo(*arguments: str) -> tuple[str, ...]:
    # Debian packages the few crates that are needed; elsewhere cargo gets them as it always does.
    debian = (
        "--offline",
        "--config=source.crates-io.replace-with='debian'",
        f"--config=source.debian.directory='{DEBIAN_CRATES}'",
    )
    manifest = f"--manifest-path={CLIENT}/rust/Cargo.toml"
    return ("cargo", *arguments, manifest, "--quiet", *(debian if _has_debian_crates() else ()))


def _has_debian_crates() -> bool:
    return any(DEBIAN_CRATES.glob("rmp-serde-*"))


QUICK = {"CARGO_PROFILE_DEV_DEBUG": "0"}
CHECKED_C = (f"BUILD={CLIENT}/c/build/checked", "CFLAGS=-O1 -g -Werror -fsanitize=address,undefined")

LANGUAGES = {
    "python": Language((), (), (sys.executable, "-m", "tests.client.say"), None),
    "node": Language(
        ("node", "npm"),
        (("npm", "ci", "--ignore-scripts", "--prefix", f"{CLIENT}/node"),),
        ("node", f"{CLIENT}/node/examples/say.js"),
        ("node", f"{CLIENT}/node/examples/village.js"),
    ),
    "c": Language(
        ("gcc", "make"),
        (("make", "-C", f"{CLIENT}/c", *CHECKED_C),),
        (f"{CLIENT}/c/build/checked/say",),
        (f"{CLIENT}/c/build/checked/village",),
    ),
    "rust": Language(
        ("cargo",),
        (_cargo("build", "--examples"),),
        (f"{CLIENT}/rust/target/debug/examples/say",),
        (f"{CLIENT}/rust/target/debug/examples/village",),
    ),
}


@cache
def built(name: str) -> Language:
    """Return a language whose publisher is built; skips where a tool for it is missing."""
    language = LANGUAGES[name]
    for tool in language.tools:
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} here")
    if name in ("c", "rust") and not Path("/usr/include/zmq.h").exists():
        pytest.skip("no zmq.h here: install libzmq3-dev")
    if name == "rust" and subprocess.run(_cargo("fetch"), cwd=ROOT, capture_output=True).returncode:
        pytest.skip("cargo can't get its crates here: install librust-zmq-dev and the like, see the Makefile")
    for command in language.build:
        subprocess.run(command, check=True, cwd=ROOT, env=os.environ | QUICK, stdin=subprocess.DEVNULL)
    return language


def line_of(event: Mapping[str, Any]) -> str:
    """Return the line that tells `say` an event."""
    fields = ((key, value) for key, value in event.items() if key != "type")
    return " ".join([event["type"], *(f"{key}={_text(value)}" for key, value in fields)])


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def translate(name: str, mode: str, lines: list[str]) -> list[str]:
    """Have a language `encode` or `decode` lines."""
    command = [*built(name).say, mode]
    done = subprocess.run(
        command, input="\n".join(lines) + "\n", capture_output=True, text=True, cwd=ROOT, timeout=WITHIN
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


class Speaker:
    """One running `say`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    def say(self, *lines: str) -> None:
        """Have it say events."""
        assert self._process.stdin is not None
        self._process.stdin.write("".join(f"{line}\n" for line in lines).encode())

    async def ask(self, line: str) -> str:
        """Return the answer to a command."""
        assert self._process.stdout is not None
        self.say(line)
        answer = await asyncio.wait_for(self._process.stdout.readline(), WITHIN)
        return answer.decode().strip()

    async def flush(self) -> None:
        """Wait until all that it said is sent."""
        assert await self.ask("flush 10") == "flushed 1"

    async def end(self) -> None:
        """Close its publisher and wait for its end, which is to be a good one."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert await asyncio.wait_for(self._process.wait(), WITHIN) == 0


@asynccontextmanager
async def speaking(
    name: str,
    address: str,
    simulation: str = "village",
    snapshot_every: float = 30,
    keys: Sequence[Path] = (),
    complaints: IO[bytes] | None = None,
) -> AsyncIterator[Speaker]:
    """Run a language's `say` against the feed at an address; what it complains of goes to a file, if one is given."""
    process = await asyncio.create_subprocess_exec(
        *built(name).say,
        "say",
        address,
        simulation,
        str(snapshot_every),
        *map(str, keys),
        cwd=ROOT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=complaints,
    )
    speaker = Speaker(process)
    try:
        yield speaker
        await speaker.end()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


class LossyRoad:
    """Stands between one publisher and the daemon, and loses messages when told to."""

    def __init__(self, daemon: str) -> None:
        self._context = zmq.asyncio.Context()
        self._front = self._context.socket(zmq.ROUTER)
        self._front.bind("tcp://127.0.0.1:*")
        self.address = self._front.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        self._back = self._context.socket(zmq.DEALER)
        self._back.connect(daemon)
        self._publisher = b""
        self.to_lose = 0
        self.lost = 0

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.create_task(self._there()), asyncio.create_task(self._and_back())]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._context.destroy(linger=0)

    async def _there(self) -> None:
        while True:
            self._publisher, *frames = await self._front.recv_multipart()
            if self.to_lose:
                self.to_lose -= 1
                self.lost += 1
            else:
                await self._back.send_multipart(frames)

    async def _and_back(self) -> None:
        while True:
            frames = await self._back.recv_multipart()
            await self._front.send_multipart([self._publisher, *frames])
