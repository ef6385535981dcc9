"""Start, stop, kill and restart a real SGLang server on this machine's CPU. Standard library only.

`make engine-sglang` installs what this needs under `.engines/`. `python -m bench.rig.sglang [tiny|mid] [FLAG...]`
serves a model in the foreground, with our flags, until Ctrl-C. What a machine without CUDA lacks is stood in for by
`tests/engines/sglang_shim/`, which says what it replaces.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.rig.process import BASE, MODELS, READY_WITHIN, ROOT, EngineServer, free_port, serve

VENV = ROOT / ".engines" / "sglang" / "venv"
SHIM = ROOT / "tests" / "engines" / "sglang_shim"
REMEDY = "run `make engine-sglang`"

VERSION = "0.5.23"

ENVIRONMENT = {
    "SGLANG_USE_CPU_ENGINE": "1",
    # Otherwise each look at /health takes a second and a request.
    "SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION": "0",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}


def installed() -> bool:
    """Tell whether `make engine-sglang` has been run."""
    return (VENV / ".done").exists() and (MODELS / ".done").exists()


def default_flags(pool_tokens: int, *, max_model_len: int = 2048, page_size: int = 32) -> list[str]:
    """SGLang's defaults, and what a CPU and a small machine force: a KV pool of `pool_tokens`, and numbers of
    32 bits, in which this machine computes the same tokens each time."""
    return [
        *("--device", "cpu", "--dtype", "float32"),
        *("--context-length", str(max_model_len), "--max-total-tokens", str(pool_tokens)),
        *("--page-size", str(page_size), "--enable-metrics", "--enable-cache-report"),
        # Without it an idle server keeps a core busy.
        "--sleep-on-idle",
    ]


def sidecar_flags(
    run: Path, pool_tokens: int, *, max_model_len: int = 2048, page_size: int = 32, step_tokens: int = 288
) -> list[str]:
    """What we recommend beside a sidecar: small pages and steps, sessions in the radix cache, and the KV event feed
    with replay. The feed's sockets lie in the folder `run`."""
    events = {
        "publisher": "zmq",
        "endpoint": f"ipc://{run}/kv",
        "replay_endpoint": f"ipc://{run}/kv-replay",
        "topic": "kv-events",
        "format": "dynamo",
    }
    return [
        *default_flags(pool_tokens, max_model_len=max_model_len, page_size=page_size),
        *("--chunked-prefill-size", str(step_tokens), "--enable-session-radix-cache"),
        *("--kv-events-config", json.dumps(events)),
    ]


def lora_flags(slots: int = 2, loaded: int | None = None, max_rank: int = 8) -> list[str]:
    """Flags that let requests use LoRAs: `slots` on the device beside the base model's, at most `loaded` in host
    memory."""
    limit = [] if loaded is None else ["--max-loaded-loras", str(loaded)]
    return [
        *("--enable-lora", "--max-loras-per-batch", str(slots + 1), "--max-lora-rank", str(max_rank), *limit),
        *("--lora-target-modules", "q_proj", "k_proj", "v_proj", "o_proj", "--lora-backend", "torch_native"),
    ]


def host_tier_flags(ratio: float = 2.0) -> list[str]:
    """Flags for a host tier `ratio` times as large as the device's pool."""
    return [
        *("--enable-hierarchical-cache", "--hicache-ratio", str(ratio)),
        *("--hicache-io-backend", "direct", "--hicache-mem-layout", "layer_first"),
    ]


def storage_flags(segment: Path, size: int) -> list[str]:
    """Flags for a storage of `size` bytes in the file `segment`, below a host tier."""
    extra = {
        "backend_name": "scalesim",
        "module_path": "scalesim_adapters.sglang.plugin.storage",
        "class_name": "HostStorage",
        "segment": str(segment),
        "bytes": size,
    }
    return [
        *("--hicache-storage-backend", "dynamic"),
        *("--hicache-storage-backend-extra-config", json.dumps(extra)),
    ]


class SglangServer(EngineServer):
    """One SGLang server with all its processes.

    `model` is a folder; the base model is served as `base`. `run` is a folder of the caller's for the log and
    sockets. The port stays the same over restarts.
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
        port = free_port()
        super().__init__(
            [
                *(str(VENV / "bin" / "python"), "-m", "sglang.launch_server", "--model-path", str(model)),
                *("--served-model-name", BASE, "--host", "127.0.0.1", "--port", str(port), *flags),
            ],
            {**ENVIRONMENT, "PYTHONPATH": str(SHIM), **(env or {})},
            port=port,
            log=run / "sglang.log",
            remedy=REMEDY,
            ready_within=ready_within,
        )


def main() -> None:
    """Serve a model in the foreground until interrupted."""

    def server(run: Path, model: str, extra: Sequence[str]) -> SglangServer:
        flags = [*sidecar_flags(run, 8192), *(lora_flags() if model == "tiny" else []), *extra]
        return SglangServer(MODELS / model, flags, run=run)

    serve(server)


if __name__ == "__main__":
    main()
