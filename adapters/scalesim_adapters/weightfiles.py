"""What tells the weights of one model folder from those of another. Standard library only."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path

SUFFIXES = (".safetensors", ".bin", ".pt", ".gguf")
CONFIGS = ("config.json", "adapter_config.json")
SAMPLES = 64
SAMPLE_BYTES = 4096


def weights_digest(folder: Path) -> str:
    """Return a digest of the files of a model or a LoRA: its configuration, and of every weight file its name, size,
    time of change, and 64 evenly spread samples of 4 KiB.

    A model that has no files there (its name is that of a hub) has a new digest every time: nothing outlives the
    engine.
    """
    weights = sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES)
    if not weights:
        return uuid.uuid4().hex
    found = hashlib.sha256()
    for config in (folder / name for name in CONFIGS):
        found.update(config.read_bytes() if config.is_file() else b"")
    for path in weights:
        status = path.stat()
        found.update(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode())
        with path.open("rb") as file:
            for number in range(SAMPLES):
                file.seek(status.st_size * number // SAMPLES)
                found.update(file.read(SAMPLE_BYTES))
    return found.hexdigest()
