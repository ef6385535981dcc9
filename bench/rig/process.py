"""Start, stop, kill and restart a real engine on this machine, with all of its processes. Standard library only."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / ".engines" / "models"
BASE = "base"
READY_WITHIN = 300.0
PORTS = range(15_000, 32_768)
_ports = PORTS
_random = random.SystemRandom()
STOP_WITHIN = 20.0


class EngineFailed(RuntimeError):
    """The engine isn't installed, did not start, or ended by itself; the text says what to do or what it
    said."""


def keep_to_ports(share: int, of: int) -> None:
    """Let this process find ports in one of so many shares alone: what runs beside it then finds others, also before
    anybody listens there."""
    global _ports
    _ports = PORTS[share::of]


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on now.

    It isn't one of those that the kernel gives to connections (from 32,768 on, ip(7)): an engine takes up to a minute
    until it listens, and some connection would have its port by then.
    """
    while True:
        port = _random.choice(_ports)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class EngineServer:
    """One engine at `port`, with all its processes. As a context manager it starts on entry, unless it was started, and
    leaves nothing running on exit.

    `environment` is added to ours. `remedy` says how to install what `command` needs. Raises `EngineFailed` with the
    end of `log` where the engine doesn't become healthy within `ready_within` seconds.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        port: int,
        log: Path,
        remedy: str,
        ready_within: float = READY_WITHIN,
    ) -> None:
        self.port = port
        self.log = log
        self._command = list(command)
        self._env = {**os.environ, **environment}
        self._remedy = remedy
        self._ready_within = ready_within
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Base URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Id of the process above all of the engine's. Raises `EngineFailed` where the engine was not
        started."""
        if self._process is None:
            raise EngineFailed("the engine was not started")
        return self._process.pid

    def __enter__(self) -> Self:
        if self._process is None:
            self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the engine and wait until it is healthy."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start the engine's processes without waiting."""
        if not Path(self._command[0]).exists():
            raise EngineFailed(f"{self._command[0]} is not installed: {self._remedy}")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.rig.warden", *self._command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=self._env,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether what was started last still runs."""
        return self._process is not None and self._process.poll() is None

    def wait_ready(self) -> None:
        """Wait for /health. On failure everything is stopped before `EngineFailed` is raised."""
        deadline = time.monotonic() + self._ready_within
        while not self.healthy():
            ended = not self.running
            if ended or time.monotonic() > deadline:
                self.kill()
                what = "ended" if ended else f"was not healthy within {self._ready_within:.0f} s"
                raise EngineFailed(
                    f"{Path(self._command[0]).name} {what}; the end of {self.log}:\n{self._log_tail()}\n"
                    f"If a package is missing, {self._remedy}; if memory is short, take a smaller model or KV pool."
                )
            time.sleep(0.1)

    def healthy(self) -> bool:
        """Ask /health once."""
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return int(answer.status) == 200
        except (urllib.error.URLError, OSError):
            return False

    def stop(self) -> None:
        """End the engine by SIGTERM, then whatever is left of it by SIGKILL. Harmless where nothing runs."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_WITHIN)
        self.kill()

    def kill(self) -> None:
        """End every process of the engine by SIGKILL at once, as a crash would."""
        process, self._process = self._process, None
        if process is not None and process.stdin is not None:
            process.stdin.close()
            process.wait()

    def restart(self) -> None:
        """Stop, then start with the same flags at the same port."""
        self.stop()
        self.start()

    def _log_tail(self, lines: int = 40) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def serve(build: Callable[[Path, str, Sequence[str]], EngineServer]) -> None:
    """Serve in the foreground until interrupted. The command line names the model, tiny if it doesn't, then flags;
    `build` is given a folder for the log and sockets, the model and the flags."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    model, extra = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("tiny", [])
    with tempfile.TemporaryDirectory(prefix="scalesim-") as folder:
        server = build(Path(folder), model, extra)
        print(f"starting {model}; the log: {server.log}", flush=True)
        with contextlib.suppress(KeyboardInterrupt), server:
            print(f"serving at {server.url}; Ctrl-C ends it", flush=True)
            signal.pause()
