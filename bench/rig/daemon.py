"""`scalesimd serve` as a process that can be killed, frozen and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from bench.rig.process import free_port

READY_WITHIN = 30.0
STOP_WITHIN = 20.0


class DaemonFailed(RuntimeError):
    """The daemon did not become ready; the text has its log."""


class DaemonProcess:
    """One daemon beside one engine. Its store, sockets and log lie in `folder`; its addresses survive
    restarts. As a context manager it is started on entry and ended on exit.

    `dues` is where it broadcasts dues, by default in `folder`; it has a gateway where it is given a `gateway_port`.
    `engine` is what else it is told of the engine, as in its settings, `config` a file of more, and `environment` is
    added to ours last. It is asked at `host`; `before` is a command that starts another where it is to run.
    """

    def __init__(
        self,
        folder: Path,
        engine_url: str,
        *,
        staging_bytes: int = 1 << 30,
        dues: str | None = None,
        config: Path | None = None,
        gateway_port: int | None = None,
        environment: Mapping[str, str] | None = None,
        host: str = "127.0.0.1",
        before: Sequence[str] = (),
        **engine: object,
    ) -> None:
        self.feed = f"ipc://{folder}/feed"
        self.dues = dues or f"ipc://{folder}/dues"
        self.gateway = f"http://127.0.0.1:{gateway_port}"
        self.api = f"http://{host}:{free_port()}"
        self.log = folder / "scalesimd.log"
        self._command = [
            *before,
            *(str(Path(sys.executable).with_name("scalesimd")), "serve"),
            *("--feed", self.feed, "--api-port", self.api.rpartition(":")[2]),
            *(() if config is None else ("--config", str(config))),
            *(("--gateway", "--gateway-port", str(gateway_port)) if gateway_port is not None else ()),
        ]
        self._env = {
            **os.environ,
            "SCALESIM_ENGINES": json.dumps([{"kind": "vllm", "url": engine_url, **engine}]),
            "SCALESIM_BROADCAST__BIND": self.dues,
            "SCALESIM_REDIS__DATA_DIR": str(folder / "valkey"),
            "SCALESIM_LORAS__LINKS_DIR": str(folder / "links"),
            "SCALESIM_LORAS__STAGING_DIR": str(folder / "staging"),
            "SCALESIM_LORAS__STAGING_BYTES": str(staging_bytes),
            **(environment or {}),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> DaemonProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it is ready. Harmless where it runs. Raises `DaemonFailed` where it ends or takes
        too long."""
        self.launch()
        deadline = time.monotonic() + READY_WITHIN
        while not self._ready():
            if not self.running or time.monotonic() > deadline:
                self.stop()
                raise DaemonFailed(f"scalesimd did not become ready; its log:\n{self.log.read_text()}")
            time.sleep(0.05)

    def launch(self) -> None:
        """Start it without waiting. Harmless where it runs."""
        if not self.running:
            with self.log.open("ab") as sink:
                self._process = subprocess.Popen(self._command, stdout=sink, stderr=sink, env=self._env)

    @property
    def running(self) -> bool:
        """Whether the process that was started last still runs."""
        return self._process is not None and self._process.poll() is None

    def report(self) -> dict[str, Any]:
        """Ask what became of the prefetches so far. Raises `DaemonFailed` where it doesn't answer."""
        try:
            answer: dict[str, Any] = httpx.get(f"{self.api}/v1/report").raise_for_status().json()
        except httpx.HTTPError as error:
            raise DaemonFailed(f"scalesimd: {error}; its log:\n{self.log.read_text()}") from error
        return answer

    def cpu_seconds(self) -> float:
        """Return the CPU time of the process that was started last, and of its Valkey. Raises `DaemonFailed` where it
        doesn't run."""
        return sum(_ticks(pid) for pid in self.pids()) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """Return the memory that the process and its Valkey have now. Raises `DaemonFailed` where it doesn't run."""
        return sum(_resident_bytes(pid) for pid in self.pids())

    def pids(self) -> list[str]:
        """Return the ids of the process that was started last and of those that it has started. Raises `DaemonFailed`
        where it doesn't run."""
        if self._process is None:
            raise DaemonFailed("scalesimd was not started")
        pids = [str(self._process.pid)]
        for pid in pids:
            tasks = Path(f"/proc/{pid}/task").glob("*/children")
            pids += [child for task in tasks for child in task.read_text().split()]
        return pids

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        if self._process is None:
            raise DaemonFailed("scalesimd was not started")
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it as a supervisor would. Harmless where it doesn't run."""
        if self.running:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            self._end(STOP_WITHIN)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.signal(signal.SIGKILL)
        self._end(STOP_WITHIN)

    def _end(self, within: float) -> None:
        process, self._process = self._process, None
        if process is not None:
            try:
                process.wait(within)
            finally:
                process.kill()
                process.wait()

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.api}/ready", timeout=2).is_success
        except httpx.HTTPError:
            return False


def _ticks(pid: str) -> int:
    """Return a process's user and system time in clock ticks: fields 14 and 15 of its stat (proc(5)), counted after the
    command's name, which may hold spaces."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _resident_bytes(pid: str) -> int:
    """Return a process's resident memory: VmRSS of its status, in KiB (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024
