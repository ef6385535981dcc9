"""To what KV belongs: weights, configuration, data type, layout, hashes and engine."""

from __future__ import annotations

import hashlib
import os
import uuid
from pathlib import Path
from typing import Any

import vllm

from scalesim_adapters.weightfiles import weights_digest


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


def _hash_seed(algorithm: str) -> str:
    """Return what block hashes start from. vLLM's is fixed for SHA-256 and random for others, unless PYTHONHASHSEED is
    set (`vllm/v1/core/kv_cache_utils.py`)."""
    default = "fixed" if algorithm.startswith("sha256") else uuid.uuid4().hex
    return os.environ.get("PYTHONHASHSEED", default)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
