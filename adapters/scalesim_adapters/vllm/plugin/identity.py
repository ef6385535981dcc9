"""To what KV belongs: weights, configuration, data type, layout, hashes and engine."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path
from typing import Any

import vllm

SAMPLES = 64
SAMPLE_BYTES = 4096


def kv_identity(config: Any) -> dict[str, str]:
    """Return the identity of what an engine with this `VllmConfig` computes, as names and values to compare."""
    model, cache, parallel = config.model_config, config.cache_config, config.parallel_config
    return {
        "weights": uuid.uuid4().hex
        if config.load_config.load_format == "dummy"
        else weights_digest(Path(model.model)),
        "model": f"{model.compute_hash()} {_digest(repr(model.hf_overrides))}",
        "dtype": f"{model.dtype} {cache.cache_dtype}",
        "layout": f"{cache.kv_cache_layout} {cache.block_size} {config.attention_config.backend}",
        "parallel": f"{parallel.tensor_parallel_size} {parallel.pipeline_parallel_size} {parallel.rank}",
        "hashes": f"{cache.prefix_caching_hash_algo} {_hash_seed(cache.prefix_caching_hash_algo)}",
        "engine": f"vllm {vllm.__version__}",
    }


def weights_digest(folder: Path) -> str:
    """Return a digest of a model's files: config.json, and of every weight file its name, size, time of change, and 64
    evenly spread samples of 4 KiB.

    A model that has no files there (its name is that of a hub) has a new digest every time: nothing outlives the
    engine.
    """
    weights = sorted(
        path for path in folder.glob("*") if path.suffix in (".safetensors", ".bin", ".pt", ".gguf")
    )
    if not weights:
        return uuid.uuid4().hex
    config = folder / "config.json"
    found = hashlib.sha256(config.read_bytes() if config.is_file() else b"")
    for path in weights:
        status = path.stat()
        found.update(f"{path.name} {status.st_size} {status.st_mtime_ns}".encode())
        with path.open("rb") as file:
            for number in range(SAMPLES):
                file.seek(status.st_size * number // SAMPLES)
                found.update(file.read(SAMPLE_BYTES))
    return found.hexdigest()


def _hash_seed(algorithm: str) -> str:
    """Return what block hashes start from. vLLM's is fixed for SHA-256 and random for others, unless PYTHONHASHSEED is
    set (`vllm/v1/core/kv_cache_utils.py`)."""
    default = "fixed" if algorithm.startswith("sha256") else uuid.uuid4().hex
    return os.environ.get("PYTHONHASHSEED", default)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
