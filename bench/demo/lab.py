"""The engines and the daemon of one demo, started and stopped with the folder of their logs and sockets."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import httpx

from bench.rig.vllm import MODELS, VllmServer, default_flags, free_port, sidecar_flags
from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer
from scalesim_client.publisher import Publisher

EngineKind = Literal["vllm", "emulator"]
Flags = Literal["default", "ours"]

POOL_TOKENS: Final = 290 * 32  # room for 8.5 of the 25 agents' prompts
EMULATED_SPEED: float = 1.0  # that of the emulator's cost model
READY_WITHIN: Final = 60.0
STOP_WITHIN: Final = 20.0


class DaemonFailed(RuntimeError):
    """The daemon did not become ready; the text has the end of its log."""


@contextmanager
def engine(kind: EngineKind, flags: Flags, folder: Path) -> Iterator[str]:
    """Run an engine with vLLM's default flags or ours, and the same KV pool; yield its base URL."""
    folder.mkdir()
    server = _emulator(flags, folder) if kind == "emulator" else _vllm(flags, folder)
    with server:
        yield server.url


def _vllm(flags: Flags, folder: Path) -> VllmServer:
    given = default_flags(POOL_TOKENS) if flags == "default" else sidecar_flags(folder, POOL_TOKENS)
    # On a larger machine vLLM leaves a core to its server by itself; of two it would use only one.
    env = {"VLLM_CPU_OMP_THREADS_BIND": "0-1"} if os.cpu_count() == 2 else {}
    return VllmServer(MODELS / "mid", given, run=folder, env=env)


def _emulator(flags: Flags, folder: Path) -> EmulatorServer:
    if flags == "default":
        shape: dict[str, Any] = {
            "block_size": 128,
            "blocks": POOL_TOKENS // 128,
            "max_num_batched_tokens": 2048,
            "scheduling_policy": "fcfs",
        }
    else:
        shape = {
            "blocks": POOL_TOKENS // 32,
            "endpoint": f"ipc://{folder}/kv",
            "replay_endpoint": f"ipc://{folder}/kv-replay",
        }
    return EmulatorServer(EmulatorConfig(time_scale=EMULATED_SPEED, max_loras=0, **shape))


@dataclass(frozen=True, slots=True)
class Sidecar:
    """A running daemon: `api` is the base URL of its REST, `feed` where simulations connect."""

    api: str
    feed: str
    log: Path
    process: subprocess.Popen[bytes]

    def report(self) -> dict[str, Any]:
        """Ask what became of the prefetches so far. Raises `DaemonFailed` where it doesn't answer."""
        try:
            answer: dict[str, Any] = httpx.get(f"{self.api}/v1/report").raise_for_status().json()
        except httpx.HTTPError as error:
            raise DaemonFailed(f"scalesimd: {error}; the end of its log:\n{_tail(self.log)}") from error
        return answer

    def publisher(self, simulation: str) -> Publisher:
        """Return a publisher for a simulation that counts steps."""
        return Publisher(simulation, "step", address=self.feed)


@contextmanager
def sidecar(
    engine_url: str, folder: Path, *, mode: str = "active", staging_bytes: int = 1 << 30, **engine: int
) -> Iterator[Sidecar]:
    """Run `scalesimd serve` beside an engine, with an embedded store in `folder`, until the block ends.

    `engine` is what else the daemon is told of the engine, as in its settings. Raises `DaemonFailed` where it
    doesn't become ready.
    """
    port, feed, log = free_port(), f"ipc://{folder}/feed", folder / "scalesimd.log"
    command = [
        *(str(Path(sys.executable).with_name("scalesimd")), "serve"),
        *("--feed", feed, "--api-port", str(port), "--mode", mode),
    ]
    env = {
        **os.environ,
        "SCALESIM_ENGINES": json.dumps([{"kind": "vllm", "url": engine_url, **engine}]),
        "SCALESIM_REDIS__DATA_DIR": str(folder / "valkey"),
        "SCALESIM_LORAS__LINKS_DIR": str(folder / "links"),
        "SCALESIM_LORAS__STAGING_DIR": str(folder / "staging"),
        "SCALESIM_LORAS__STAGING_BYTES": str(staging_bytes),
    }
    with log.open("ab") as sink, subprocess.Popen(command, stdout=sink, stderr=sink, env=env) as process:
        running = Sidecar(f"http://127.0.0.1:{port}", feed, log, process)
        try:
            _wait_ready(running)
            yield running
        finally:
            process.terminate()
            try:
                process.wait(STOP_WITHIN)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_ready(daemon: Sidecar) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while not _is_ready(daemon.api):
        if daemon.process.poll() is not None or time.monotonic() > deadline:
            raise DaemonFailed(f"scalesimd did not become ready; the end of its log:\n{_tail(daemon.log)}")
        time.sleep(0.1)


def _is_ready(api: str) -> bool:
    try:
        return httpx.get(f"{api}/ready", timeout=2).is_success
    except httpx.HTTPError:
        return False


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-30:])
