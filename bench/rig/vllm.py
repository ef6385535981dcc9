"""Start, stop, kill and restart a real `vllm serve` on this machine's CPU. Standard library only.

`make engine-vllm` installs what this needs under `.engines/`. `python -m bench.rig.vllm [tiny|mid] [FLAG...]`
serves a model in the foreground, with our flags, until Ctrl-C.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.rig.process import BASE, MODELS, READY_WITHIN, ROOT, EngineServer, free_port, serve

ENGINE = ROOT / ".engines" / "vllm"
VENV = ENGINE / "venv"
SHIM = ENGINE / "shim"
REMEDY = "run `make engine-vllm`"

VERSION = "0.32.0"

ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
}

PLUGIN_ENVIRONMENT = {"PYTHONPATH": f"{SHIM}:{ROOT / 'adapters'}"}


def thread_binding() -> dict[str, str]:
    """Return the environment that gives an engine both cores of a machine that has two, unless it says otherwise: vLLM
    would use only one of them. On a larger machine it leaves a core to its server by itself."""
    name = "VLLM_CPU_OMP_THREADS_BIND"
    return {name: os.environ.get(name, "0-1")} if os.cpu_count() == 2 else {}


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
        *("--scheduling-policy", "priority", "--enable-server-load-tracking"),
        *("--kv-events-config", json.dumps(events)),
    ]


def lora_flags(slots: int = 2, host_places: int = 4, max_rank: int = 8) -> list[str]:
    """Flags that let requests use LoRAs: `slots` on the device, `host_places` in host memory."""
    return [
        *("--enable-lora", "--max-loras", str(slots), "--max-cpu-loras", str(host_places)),
        *("--max-lora-rank", str(max_rank)),
    ]


def tier_flags(segment: Path, size: int | None) -> list[str]:
    """Flags of the host tier: a segment of `size` bytes in a file, None where it is there already. They need
    `PLUGIN_ENVIRONMENT`."""
    config = {
        "kv_connector": "HostTierConnector",
        "kv_connector_module_path": "scalesim_adapters.vllm.plugin.offload",
        "kv_role": "kv_both",
        "kv_connector_extra_config": {"segment": str(segment), **({"bytes": size} if size else {})},
    }
    return ["--kv-transfer-config", json.dumps(config)]


def _common(max_model_len: int) -> list[str]:
    return [
        *("--enforce-eager", "--max-model-len", str(max_model_len), "--enable-prompt-tokens-details"),
        *("--kv-cache-memory-bytes", str(1 << 30)),
    ]


class VllmServer(EngineServer):
    """One `vllm serve` with all its processes.

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
        if len(f"{run}/kv-replay") > 100:
            raise ValueError(f"the folder's path is too long for a socket: {run}")
        port = free_port()
        super().__init__(
            [
                *(str(VENV / "bin" / "vllm"), "serve", str(model), "--served-model-name", BASE),
                *("--host", "127.0.0.1", "--port", str(port), *flags),
            ],
            {**ENVIRONMENT, "PYTHONPATH": str(SHIM), **(env or {})},
            port=port,
            log=run / "vllm.log",
            remedy=REMEDY,
            ready_within=ready_within,
        )


def main() -> None:
    """Serve a model in the foreground until interrupted."""

    def server(run: Path, model: str, extra: Sequence[str]) -> VllmServer:
        flags = [*sidecar_flags(run, 8192), *(lora_flags() if model == "tiny" else []), *extra]
        return VllmServer(MODELS / model, flags, run=run)

    serve(server)


if __name__ == "__main__":
    main()
