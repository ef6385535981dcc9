"""Start, stop, kill and restart a real `vllm serve` on this machine's CPU. Standard library only.

`make engine-vllm` installs what this needs under `.engines/`. `python -m bench.rig.vllm [tiny|mid] [FLAG...]`
serves a model in the foreground, with our flags, until Ctrl-C.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / ".engines" / "vllm"
VENV = ENGINE / "venv"
SHIM = ENGINE / "shim"
MODELS = ROOT / ".engines" / "models"
REMEDY = "run `make engine-vllm`"

VERSION = "0.32.0"
BASE = "base"
READY_WITHIN = 300.0
STOP_WITHIN = 20.0

ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
}


class EngineFailed(RuntimeError):
    """The engine isn't installed, did not start, or ended by itself; the text says what to do or what it
    said."""


def installed() -> bool:
    """Tell whether `make engine-vllm` has been run."""
    return (VENV / ".done").exists() and (MODELS / ".done").exists()


def default_flags(pool_tokens: int, *, max_model_len: int = 2048) -> list[str]:
    """vLLM's defaults, and what a CPU and a small machine force: no compilation, and a KV pool of
    `pool_tokens`.

    The answers tell cached tokens, so that a run with these flags can be measured. One block of the pool is
    vLLM's own.
    """
    return [*_common(max_model_len), "--num-gpu-blocks-override", str(pool_tokens // 128 + 1)]


def sidecar_flags(
    run: Path, pool_tokens: int, *, max_model_len: int = 2048, block_size: int = 32
) -> list[str]:
    """What we recommend beside a sidecar: small blocks, priorities, and the KV event feed with
    replay.

    The feed's sockets lie in the folder `run`. A path is the one form that vLLM binds without opening it to
    the network.
    """
    events = {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": f"ipc://{run}/kv",
        "replay_endpoint": f"ipc://{run}/kv-replay",
        "topic": "kv-events",
    }
    return [
        *_common(max_model_len),
        *("--block-size", str(block_size), "--num-gpu-blocks-override", str(pool_tokens // block_size + 1)),
        *("--scheduling-policy", "priority"),
        *("--kv-events-config", json.dumps(events)),
    ]


def lora_flags(slots: int = 2, host_places: int = 4, max_rank: int = 8) -> list[str]:
    """Flags that let requests use LoRAs: `slots` on the device, `host_places` in host memory."""
    return [
        *("--enable-lora", "--max-loras", str(slots), "--max-cpu-loras", str(host_places)),
        *("--max-lora-rank", str(max_rank)),
    ]


def _common(max_model_len: int) -> list[str]:
    return [
        *("--enforce-eager", "--max-model-len", str(max_model_len), "--enable-prompt-tokens-details"),
        *("--kv-cache-memory-bytes", str(1 << 30)),
    ]


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class VllmServer:
    """One `vllm serve` with all its processes. As a context manager it starts on entry and leaves nothing
    running on exit.

    `model` is a folder; the base model is served as `base`. `run` is a folder of the caller's for the log and
    sockets. The port stays the same over restarts. Raises `EngineFailed` with the end of the log where the
    engine doesn't become healthy within `ready_within` seconds.
    """

    def __init__(
        self,
        model: Path,
        flags: Sequence[str],
        *,
        run: Path,
        env: Mapping[str, str] | None = None,
        ready_within: float = READY_WITHIN,
    ) -> None:
        if len(f"{run}/kv-replay") > 100:
            raise ValueError(f"the folder's path is too long for a socket: {run}")
        self.port = free_port()
        self.log = run / "vllm.log"
        self._command = [
            *(str(VENV / "bin" / "vllm"), "serve", str(model), "--served-model-name", BASE),
            *("--host", "127.0.0.1", "--port", str(self.port), *flags),
        ]
        self._env = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(SHIM), **(env or {})}
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

    def __enter__(self) -> VllmServer:
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
        if not installed():
            raise EngineFailed(f"vLLM is not installed under {ENGINE}: {REMEDY}")
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

    def wait_ready(self) -> None:
        """Wait for /health. On failure everything is stopped before `EngineFailed` is raised."""
        deadline = time.monotonic() + self._ready_within
        while not self.healthy():
            ended = self._process is None or self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.kill()
                what = "ended" if ended else f"was not healthy within {self._ready_within:.0f} s"
                raise EngineFailed(
                    f"vllm serve {what}; the end of {self.log}:\n{self._log_tail()}\n"
                    f"If a package is missing, {REMEDY}; if memory is short, take a smaller model or KV pool."
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


def main() -> None:
    """Serve a model in the foreground until interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    name, extra = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("tiny", [])
    with tempfile.TemporaryDirectory(prefix="scalesim-vllm-") as folder:
        run = Path(folder)
        flags = [*sidecar_flags(run, 8192), *(lora_flags() if name == "tiny" else []), *extra]
        print(f"starting vLLM on {name}; its log: {run / 'vllm.log'}", flush=True)
        with contextlib.suppress(KeyboardInterrupt), VllmServer(MODELS / name, flags, run=run) as server:
            print(f"serving at {server.url}; Ctrl-C ends it", flush=True)
            signal.pause()


if __name__ == "__main__":
    main()
