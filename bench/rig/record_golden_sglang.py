"""Record what a real SGLang says, byte for byte, for the tests of its adapter.

`python -m bench.rig.record_golden_sglang` starts a small server with a host tier, asks it one of everything that we
use, and writes `tests/adapters/golden/sglang-<version>.json`.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import httpx

from bench.rig import sglang
from bench.rig.process import ROOT
from bench.rig.record_golden import (
    BLOCK,
    GOLDEN,
    LORAS,
    MODEL,
    POOL_BLOCKS,
    Recorder,
    lora,
    prompt,
    truncated_lora,
)

METRICS = ("sglang:num_requests_total", "sglang:num_aborted_requests_total")
# What the adapter reads of more than 500 keys.
SERVER_INFO = (
    *("version", "page_size", "max_total_num_tokens", "random_seed", "startup_time", "dp_size"),
    *(
        "disable_radix_cache",
        "radix_eviction_policy",
        "enable_session_radix_cache",
        "enable_priority_scheduling",
    ),
    *("enable_metrics", "enable_lora", "max_loras_per_batch", "max_loaded_loras", "kv_events_config"),
    *("context_length", "served_model_name", "enable_hierarchical_cache"),
    *("enable_memory_saver", "enable_weights_cpu_backup"),
)
LOAD, UNLOAD = "/load_lora_adapter", "/unload_lora_adapter"


def generate(rec: Recorder, what: str, tokens: list[int], **fields: Any) -> httpx.Response:
    """Send a request for no token."""
    body = {"input_ids": tokens, "sampling_params": {"max_new_tokens": 0}, **fields}
    return rec.ask(what, "POST", "/generate", body)


def record_memory(rec: Recorder) -> None:
    """Store, hit, salt, LoRA, evict to the host and bring back: the replay tells it all."""
    generate(rec, "request, cold: two full pages", prompt(100, 65), session_id="a0")
    rec.batch("BlockStored, two root pages of session a0 on the device")
    generate(rec, "request, warm: both pages cached", prompt(100, 65), session_id="a0")
    generate(rec, "request that continues the first by a page", prompt(100, 97), session_id="a0")
    generate(rec, "request with a cache salt", prompt(300, 65), session_id="a2", cache_salt="pepper")
    rec.ask("load a LoRA", "POST", LOAD, lora("lora00", LORAS / "lora00"))
    generate(rec, "request with a LoRA", prompt(100, 64), session_id="a4", lora_path="lora00")
    generate(rec, "request of another agent", prompt(500, 129), session_id="a6")
    generate(rec, "request that needs most of the pool", prompt(1000, 1001), session_id="a5")
    generate(rec, "request whose pages come back from the host", prompt(100, 97), session_id="a0")


def record_answers(rec: Recorder, broken: Path) -> None:
    """Ask everything that stores nothing, errors included."""
    rec.ask("models, one LoRA loaded", "GET", "/v1/models")
    rec.ask("loads", "GET", "/v1/loads?include=core")
    rec.ask("load the same LoRA again", "POST", LOAD, lora("lora00", LORAS / "lora00"))
    rec.ask("load a LoRA from a missing path", "POST", LOAD, lora("lora01", "/nonexistent/lora01"))
    rec.ask("load a LoRA whose weights are truncated", "POST", LOAD, lora("lora02", broken))
    rec.ask("load a LoRA without a path", "POST", LOAD, {"lora_name": "lora01"})
    rec.ask("unload a LoRA", "POST", UNLOAD, {"lora_name": "lora00"})
    rec.ask("unload an unknown LoRA", "POST", UNLOAD, {"lora_name": "lora09"})
    rec.ask("models, no LoRA loaded", "GET", "/v1/models")
    rec.ask("close a session", "POST", "/close_session", {"session_id": "a0"})
    rec.ask("abort a request that isn't there", "POST", "/abort_request", {"rid": "nobody"})
    generate(rec, "request with a LoRA never loaded", prompt(100, 5), lora_path="lora09")
    generate(rec, "request of a prompt that is too long", prompt(100, 1100))
    generate(rec, "request of an empty prompt", [])
    rec.ask("tokenize a text", "POST", "/tokenize", {"model": "base", "prompt": "the baker walks"})
    messages = [
        {"role": "system", "content": "the baker"},
        {"role": "user", "content": "walks to the market"},
    ]
    tokenize = {"model": "base", "messages": messages, "add_generation_prompt": False}
    rec.ask("tokenize messages", "POST", "/tokenize", tokenize)
    rec.ask("a route that doesn't exist", "GET", "/nowhere")


def main() -> None:
    """Record and write the file."""
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory(prefix="scalesim-golden-") as folder:
        run = Path(folder)
        flags = sglang.sidecar_flags(run, POOL_BLOCKS * BLOCK, max_model_len=1024)
        flags += [*sglang.lora_flags(), *sglang.host_tier_flags()]
        with sglang.SglangServer(MODEL, flags, run=run) as server:
            rec = Recorder(server.url, run)
            record_memory(rec)
            record_answers(rec, truncated_lora(run))
            replay = rec.replay(0)
            info = rec.http.get("/server_info").json()
            metrics = rec.http.get("/metrics").text.splitlines()
    golden = {
        "engine": "sglang",
        "version": info["version"],
        "flags": flags,
        "server_info": {key: info[key] for key in SERVER_INFO},
        "metrics": [line for line in metrics if line.startswith(METRICS)],
        "http": rec.answers,
        "kv_events": rec.batches,
        "kv_replay": {"start": 0, "messages": replay},
    }
    text = json.dumps(golden, indent=1).replace(str(run), "/run/engine").replace(str(ROOT), "/scalesim")
    (GOLDEN / f"sglang-{info['version']}.json").write_text(text + "\n")
    print(f"{len(rec.answers)} answers, {len(rec.batches)} KV event batches")


if __name__ == "__main__":
    main()
