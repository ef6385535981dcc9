"""Somebody who has the pages alone: an empty folder, the commands on the PATH, and a shell that runs block after block.

The pages' ports are the default ones, which may be taken: where the system allows it the reader has a network of their
own, else these ports have to be free.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, NoReturn, Self

import pytest

from tests.docs.blocks import ROOT, Block

PORTS = (5600, 5601, 8000, 8700, 8701)
COMMAND_SECONDS = 60.0
STOP_SECONDS = 20.0
# Brings up the loopback interface (SIOCSIFFLAGS, IFF_UP), says so, and holds the network until its input ends.
HOLD = """
import fcntl, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))
print("up", flush=True)
sys.stdin.read()
"""


class Reader:
    """Follows blocks in an empty folder, which is their home. As a context manager it leaves nothing of theirs.

    `path` is looked in after the folder of this Python's commands; `environment` is added to ours. What is repeated
    until something shows is given up after `patience` seconds.
    """

    def __init__(
        self,
        *,
        path: Sequence[Path] = (),
        environment: Mapping[str, str] | None = None,
        patience: float = 60.0,
    ) -> None:
        # Sockets lie in it: their paths have to be short.
        self._folder = TemporaryDirectory(prefix="reader-")
        self._home = Path(self._folder.name)
        self._patience = patience
        commands = Path(sys.executable).parent
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SCALESIM_")},
            "HOME": str(self._home),
            "PATH": os.pathsep.join(map(str, (commands, *path, os.environ["PATH"]))),
            "COLUMNS": "200",
            "PYTHONUNBUFFERED": "1",
            # /dev/shm is everybody's.
            "SCALESIM_LORAS__STAGING_DIR": str(self._home / "staging"),
            **(environment or {}),
        }
        self._network: subprocess.Popen[str] | None = None
        self._running: list[tuple[Block, Path, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Self:
        self._network = own_network()
        if self._network is None and (taken := [port for port in PORTS if not _free(port)]):
            self._folder.cleanup()
            pytest.skip(f"no network of one's own is to be had here, and ports are taken: {taken}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, _, process in reversed(self._running):
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass
            finally:
                # The warden kills what is left when its input ends.
                process.communicate()
        if self._network is not None:
            self._network.communicate()
        self._folder.cleanup()

    def follow(self, blocks: Sequence[Block]) -> None:
        """Save, run, and leave running, in order. Fails with what was said where a block doesn't do as it should."""
        assert blocks, "nothing to follow"
        for block in blocks:
            if block.kind == "file":
                (self._home / block.how).write_text(block.text + "\n")
            elif block.keeps_running:
                self.keep(block)
            else:
                self.run(block)

    def keep(self, block: Block) -> None:
        """Start a block and leave it running, from when it has said what is waited for."""
        log = self._home / f"{len(self._running)}.log"
        with log.open("wb") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.rig.warden", *self._shell(_plain(block))],
                stdin=subprocess.PIPE,
                stdout=sink,
                stderr=sink,
                cwd=self._home,
                env={**self._environment, "PYTHONPATH": _python_path(self._environment)},
            )
        self._running.append((block, log, process))
        self.wait(lambda: block.until is None or block.until in log.read_text(errors="replace"))

    def run(self, block: Block) -> str:
        """Run a block to its end, again and again where something is to show; return its output."""
        deadline = time.monotonic() + self._patience
        while True:
            done = subprocess.run(
                self._shell(_plain(block)),
                capture_output=True,
                text=True,
                cwd=self._home,
                env=self._environment,
                timeout=COMMAND_SECONDS,
                check=False,
            )
            if done.returncode == 0 and (block.until or "") in done.stdout:
                return done.stdout
            if block.until is None or not self._worth_waiting(deadline):
                self._fail(
                    f"{block.where}: ended with {done.returncode}\n{block.text}\n{done.stdout}{done.stderr}"
                )
            time.sleep(self._patience / 100)

    def ask(self, path: str) -> Any:
        """Return what the daemon's API answers at its default address."""
        script = f"curl -sSf http://127.0.0.1:8700{path}"
        done = subprocess.run(
            self._shell(script), capture_output=True, text=True, timeout=COMMAND_SECONDS, check=True
        )
        return json.loads(done.stdout)

    def wait(self, holds: Callable[[], bool]) -> None:
        """Ask again and again until it holds. Fails where it never does."""
        deadline = time.monotonic() + self._patience
        while not holds():
            if not self._worth_waiting(deadline):
                self._fail("it never came to hold")
            time.sleep(0.05)

    def _worth_waiting(self, deadline: float) -> bool:
        return time.monotonic() < deadline and all(process.poll() is None for _, _, process in self._running)

    def _fail(self, why: str) -> NoReturn:
        pytest.fail("\n\n".join([why, *map(_tail, self._running)]))

    def _shell(self, script: str) -> list[str]:
        enter = [] if self._network is None else ["nsenter", f"--net=/proc/{self._network.pid}/ns/net"]
        return [*enter, "bash", "-euo", "pipefail", "-c", script]


def own_network() -> subprocess.Popen[str] | None:
    """Start what holds a network with nothing but a loopback interface until its input ends; None where the system
    refuses."""
    holder = subprocess.Popen(
        ["unshare", "--net", sys.executable, "-c", HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert holder.stdout is not None
    if holder.stdout.readline().strip() == "up":
        return holder
    holder.communicate()
    return None


def _plain(block: Block) -> str:
    """Return what is typed: of a console the lines after a prompt."""
    if block.language != "console":
        return block.text
    return "\n".join(re.findall(r"(?m)^\$ (.*)$", block.text))


def _python_path(environment: Mapping[str, str]) -> str:
    """Return where the warden is found, too."""
    return os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))


def _tail(running: tuple[Block, Path, subprocess.Popen[bytes]]) -> str:
    block, log, process = running
    state = "still runs" if process.poll() is None else f"ended with {process.returncode}"
    return f"{block.where}: {state}\n{log.read_text(errors='replace')[-3000:]}"


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
