"""A vLLM server that gives recorded answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import httpx

from scalesim_adapters.vllm.adapter import VllmAdapter
from tests.adapters.answers import MODELS, Answer, Golden, RecordedServer, driven

GOLDEN = Golden("vllm-0.32.0.json")
METRICS = GOLDEN.metrics
COMPLETIONS = "/v1/completions"
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
recorded, models_with = GOLDEN.recorded, GOLDEN.models_with


class Server(RecordedServer):
    """Answers with what a real server said, unless told otherwise."""

    def __init__(self, **answers: Answer) -> None:
        usual: dict[str, Answer] = {
            "/version": recorded("version"),
            "/health": recorded("health"),
            MODELS: recorded("models, no LoRA loaded"),
            "/metrics": httpx.Response(200, text=METRICS),
            "/kv_event_sources": httpx.Response(200, json={}),
            COMPLETIONS: recorded("completion, warm: both blocks cached"),
            LOAD: recorded("load a LoRA"),
            UNLOAD: recorded("unload a LoRA"),
        }
        super().__init__(GOLDEN, usual | answers)

    def find(self, method: str, path: str) -> Answer:
        if (method, path) == ("GET", LOAD):
            return recorded("a GET at the route that loads LoRAs")
        return super().find(method, path)


def drive(server: Server, body: Callable[[VllmAdapter], Awaitable[Any]], **options: Any) -> Any:
    """Run with an adapter of this server; return what `body` returns."""
    return driven(VllmAdapter, server, body, options)
