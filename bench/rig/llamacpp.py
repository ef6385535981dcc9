"""Start, stop, kill and restart a real llama.cpp server on this machine's CPU. Standard library only.

`make engine-llamacpp` installs what this needs under `.engines/`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.rig.process import BASE, ROOT, EngineServer, free_port

ENGINE = ROOT / ".engines" / "llamacpp"
COMMAND = ENGINE / "venv" / "bin" / "llama-server-vulkan"
MODEL = ENGINE / "tiny.gguf"
REMEDY = "run `make engine-llamacpp`"

VERSION = "b10434"


def installed() -> bool:
    """Tell whether `make engine-llamacpp` has been run."""
    return (ENGINE / ".done").exists()


def edge_flags(slots: int, slot_tokens: int) -> list[str]:
    """What we recommend beside a sidecar on a small machine: counts of requests, and no copies of prompts in host
    memory, which by default may take 8 GiB."""
    return [
        *("--parallel", str(slots), "--ctx-size", str(slots * slot_tokens)),
        *("--cache-ram", "0", "--metrics"),
    ]


class LlamaServer(EngineServer):
    """One `llama-server` with the small model, served as `base`. `run` is a folder of the caller's for the log."""

    def __init__(self, flags: Sequence[str], *, run: Path) -> None:
        port = free_port()
        super().__init__(
            [
                *(str(COMMAND), "--model", str(MODEL), "--alias", BASE, "--offline"),
                *("--host", "127.0.0.1", "--port", str(port), "--threads", "1", *flags),
            ],
            {},
            port=port,
            log=run / "llama.log",
            remedy=REMEDY,
            ready_within=30,
        )
