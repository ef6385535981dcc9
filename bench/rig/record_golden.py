"""Record what a real vLLM says, byte for byte, for the tests of the adapter and of the emulator.

`python -m bench.rig.record_golden` starts a small server, asks it one of everything that we use, and writes
`tests/adapters/golden/vllm-<version>.json`. Developer mode is on in this one server, to record a cleared
cache.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import httpx
import zmq

from bench.rig import vllm

GOLDEN = vllm.ROOT / "tests" / "adapters" / "golden"
MODEL = Path(".engines/models/tiny")
LORAS = Path(".engines/models/tiny-loras")
BLOCK = 32
POOL_BLOCKS = 40
METRICS = (
    "process_start_time_seconds",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:request_success_total",
    "vllm:cache_config_info",
    "vllm:lora_requests_info",
)


def prompt(start: int, tokens: int) -> list[int]:
    """Return `tokens` consecutive token ids from `start`."""
    return list(range(start, start + tokens))


class Recorder:
    """Talks to one server over HTTP and to its KV event feed, and keeps what both answer."""

    def __init__(self, url: str, run: Path) -> None:
        self.http = httpx.Client(base_url=url, timeout=60)
        self.answers: list[dict[str, Any]] = []
        self.batches: list[dict[str, Any]] = []
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        self._feed = context.socket(zmq.SUB)
        self._feed.connect(f"ipc://{run}/kv")
        self._feed.subscribe(b"")
        self._replay = context.socket(zmq.DEALER)
        self._replay.connect(f"ipc://{run}/kv-replay")

    def ask(self, what: str, method: str, path: str, body: Any = None) -> httpx.Response:
        """Send one request and keep its answer."""
        answer = self.http.request(method, path, json=body)
        kind = answer.headers.get("content-type", "")
        record = {"what": what, "method": method, "path": path, "request": body, "status": answer.status_code}
        record |= {"content_type": kind, "body": answer.json() if "json" in kind else answer.text}
        self.answers.append(record)
        return answer

    def batch(self, what: str) -> None:
        """Keep the next batch of the feed."""
        if not self._feed.poll(5000):
            raise RuntimeError(f"no KV events came: {what}")
        topic, seq, payload = self._feed.recv_multipart()
        record = {
            "what": what,
            "topic": topic.decode(),
            "seq": int.from_bytes(seq, "big"),
            "payload": payload.hex(),
        }
        self.batches.append(record)

    def quiet(self, what: str) -> None:
        """Check that the feed says nothing more."""
        if self._feed.poll(500):
            raise RuntimeError(f"unexpected KV events: {what}")

    def complete(self, what: str, **fields: Any) -> httpx.Response:
        """Ask for one token."""
        body = {"model": "base", "max_tokens": 1, "temperature": 0, **fields}
        return self.ask(what, "POST", "/v1/completions", body)

    def replay(self, start: int) -> list[list[str]]:
        """Ask for a replay and return its messages, each a list of frames in hex."""
        self._replay.send_multipart([b"", start.to_bytes(8, "big")])
        messages = []
        while True:
            if not self._replay.poll(5000):
                raise RuntimeError("the replay did not end")
            frames = self._replay.recv_multipart()
            messages.append([frame.hex() for frame in frames])
            if frames[2] == b"\xff" * 8:
                return messages


def record_memory(rec: Recorder) -> None:
    """Store, hit, store twice, salt, LoRA, full report, evict and clear."""
    rec.complete("completion, cold: two full blocks", prompt=prompt(100, 65), session_id="a0")
    rec.batch("BlockStored, two root blocks of session a0")
    rec.complete("completion, warm: both blocks cached", prompt=prompt(100, 65), session_id="a0")
    rec.quiet("a hit")
    rec.complete("completion that continues the first by a block", prompt=prompt(100, 97), session_id="a0")
    rec.batch("BlockStored, one block whose parent is the second block of the first batch")
    rec.complete("completion of an exact block multiple", prompt=prompt(200, 64), session_id="a1")
    rec.batch("BlockStored, two root blocks of session a1")
    rec.complete("completion of an exact block multiple again: last block recomputed", prompt=prompt(200, 64))
    rec.batch("BlockStored, the second copy of the second block, no session")
    salted = {"prompt": prompt(300, 65), "session_id": "a2", "cache_salt": "pepper"}
    rec.complete("completion with a cache salt", **salted)
    rec.batch("BlockStored, two root blocks with a cache salt on the first")
    rec.complete(
        "completion of cached blocks with a full report",
        prompt=prompt(100, 65),
        session_id="a3",
        vllm_xargs={"kv_cache_report_mode": "full"},
    )
    rec.batch("BlockStored, blocks of a0 reported again for session a3")
    rec.ask("load a LoRA", "POST", "/v1/load_lora_adapter", lora("lora00", LORAS / "lora00"))
    rec.complete("completion with a LoRA", model="lora00", prompt=prompt(100, 64), session_id="a4")
    rec.batch("BlockStored, two root blocks under a LoRA")
    rec.complete(
        "completion with a LoRA and a cache salt", model="lora00", prompt=prompt(100, 64), cache_salt="pepper"
    )
    rec.batch("BlockStored, two root blocks under a LoRA with a cache salt, no session")
    rec.complete("completion that needs most of the pool", prompt=prompt(1000, 961), session_id="a5")
    rec.batch("BlockRemoved of the least recent blocks, tails first; BlockStored of session a5")
    rec.http.post("/reset_prefix_cache").raise_for_status()
    rec.complete("completion after a cleared cache", prompt=prompt(100, 33), session_id="a0")
    rec.batch("AllBlocksCleared; BlockStored of session a0")


def lora(name: str, path: Path | str) -> dict[str, str]:
    """Return the body of a load call."""
    return {"lora_name": name, "lora_path": str(path)}


def record_answers(rec: Recorder, broken: Path) -> None:
    """Ask everything that stores nothing, errors included."""
    load, unload = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
    rec.ask("version", "GET", "/version")
    rec.ask("health", "GET", "/health")
    rec.ask("models, one LoRA loaded", "GET", "/v1/models")
    rec.ask("KV event sources", "GET", "/kv_event_sources")
    rec.ask("load the same LoRA again", "POST", load, lora("lora00", LORAS / "lora00"))
    rec.ask("load a LoRA from a missing path", "POST", load, lora("lora01", "/nonexistent/lora01"))
    rec.ask("load a LoRA under the base model's name", "POST", load, lora("base", LORAS / "lora01"))
    rec.ask("load a LoRA without a path", "POST", load, {"lora_name": "lora01"})
    rec.ask("load a LoRA with an empty path", "POST", load, lora("lora01", ""))
    rec.ask("load a LoRA whose weights are truncated", "POST", load, lora("lora02", broken))
    rec.ask("a GET at the route that loads LoRAs", "GET", load)
    rec.ask("unload a LoRA", "POST", unload, {"lora_name": "lora00"})
    rec.ask("unload an unknown LoRA", "POST", unload, {"lora_name": "lora00"})
    rec.ask("models, no LoRA loaded", "GET", "/v1/models")
    rec.complete("completion with an unknown model", model="lora00", prompt=prompt(100, 5))
    rec.complete("completion of zero tokens", prompt=prompt(100, 5), max_tokens=0)
    rec.complete("completion of a prompt that is too long", prompt=prompt(100, 1100))
    rec.complete("completion of an empty prompt", prompt=[])
    rec.complete("completion of a token that doesn't exist", prompt=[999999])
    rec.complete("completion without a model's name", prompt=prompt(100, 5), model="")
    rec.complete("completion of a text", prompt="the baker walks to the market", max_tokens=4)
    stream = {"max_tokens": 3, "stream": True, "stream_options": {"include_usage": True}}
    rec.complete("completion, streamed with usage", prompt=prompt(100, 5), **stream)
    messages = [
        {"role": "system", "content": "the baker"},
        {"role": "user", "content": "walks to the market"},
    ]
    chat = {"model": "base", "messages": messages, "max_tokens": 3, "temperature": 0}
    rec.ask("chat completion", "POST", "/v1/chat/completions", chat)
    rec.ask("chat completion, streamed with usage", "POST", "/v1/chat/completions", {**chat, **stream})
    rec.ask("tokenize a text", "POST", "/tokenize", {"model": "base", "prompt": "the baker walks"})
    tokenize = {"model": "base", "messages": messages, "add_generation_prompt": False}
    rec.ask("tokenize messages", "POST", "/tokenize", tokenize)
    rec.ask("tokenize for an unknown model", "POST", "/tokenize", {"model": "nobody", "prompt": "the baker"})
    rec.ask("a route that doesn't exist", "GET", "/nowhere")


def truncated_lora(folder: Path) -> Path:
    """Return a LoRA folder whose weights file ends too early."""
    path = folder / "truncated"
    path.mkdir()
    source = vllm.ROOT / LORAS / "lora02"
    (path / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
    (path / "adapter_model.safetensors").write_bytes(
        (source / "adapter_model.safetensors").read_bytes()[:2000]
    )
    return path


def main() -> None:
    """Record and write the file."""
    os.chdir(vllm.ROOT)
    with tempfile.TemporaryDirectory(prefix="scalesim-golden-") as folder:
        run = Path(folder)
        flags = vllm.sidecar_flags(run, POOL_BLOCKS * BLOCK, max_model_len=1024)
        flags += ["--max-num-batched-tokens", "1024"]
        env = {"VLLM_SERVER_DEV_MODE": "1"}
        with vllm.VllmServer(MODEL, [*flags, *vllm.lora_flags()], run=run, env=env) as server:
            rec = Recorder(server.url, run)
            bare = rec.http.get("/metrics").text
            record_memory(rec)
            record_answers(rec, truncated_lora(run))
            replay = rec.replay(len(rec.batches) - 2)
            metrics = rec.http.get("/metrics").text
            version = rec.http.get("/version").json()["version"]
    golden = {
        "engine": "vllm",
        "version": version,
        "flags": [*flags, *vllm.lora_flags()],
        "metrics_before": pick(bare),
        "metrics": pick(metrics),
        "http": rec.answers,
        "kv_events": rec.batches,
        "kv_replay": {"start": len(rec.batches) - 2, "messages": replay},
    }
    text = json.dumps(golden, indent=1).replace(str(run), "/run/engine")
    GOLDEN.mkdir(parents=True, exist_ok=True)
    (GOLDEN / f"vllm-{version}.json").write_text(text + "\n")
    print(f"{len(rec.answers)} answers, {len(rec.batches)} KV event batches")


def pick(metrics: str) -> list[str]:
    """Keep the lines that the adapter reads."""
    lines = metrics.splitlines()
    return [
        line for line in lines if line.removeprefix("# HELP ").removeprefix("# TYPE ").startswith(METRICS)
    ]


if __name__ == "__main__":
    main()
