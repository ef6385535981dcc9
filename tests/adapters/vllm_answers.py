"""A vLLM server that gives recorded answers, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from scalesim_adapters.base import LoraItem
from scalesim_adapters.vllm.adapter import VllmAdapter

GOLDEN = json.loads((Path(__file__).parent / "golden" / "vllm-0.32.0.json").read_text())
METRICS = "\n".join(GOLDEN["metrics"]) + "\n"
MODELS = "/v1/models"
COMPLETIONS = "/v1/completions"
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"


def recorded(what: str) -> httpx.Response:
    """Return an answer that a real server gave."""
    answer = next(answer for answer in GOLDEN["http"] if answer["what"] == what)
    if isinstance(answer["body"], str):
        return httpx.Response(answer["status"], text=answer["body"])
    return httpx.Response(answer["status"], json=answer["body"])


class Server:
    """Answers with what a real server said, unless told otherwise, and keeps what it was asked."""

    def __init__(self, **answers: httpx.Response | Exception) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.queries: list[dict[str, str]] = []
        self.headers: list[httpx.Headers] = []
        self._answers: dict[str, httpx.Response | Exception] = {
            "/version": recorded("version"),
            "/health": recorded("health"),
            MODELS: recorded("models, no LoRA loaded"),
            "/metrics": httpx.Response(200, text=METRICS),
            "/kv_event_sources": httpx.Response(200, json={}),
            COMPLETIONS: recorded("completion, warm: both blocks cached"),
            LOAD: recorded("load a LoRA"),
            UNLOAD: recorded("unload a LoRA"),
        } | answers

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.asked.append((request.method, path, json.loads(request.content) if request.content else None))
        self.queries.append(dict(request.url.params))
        self.headers.append(request.headers)
        if (request.method, path) == ("GET", LOAD):
            return recorded("a GET at the route that loads LoRAs")
        answer = self._answers.get(path, recorded("a route that doesn't exist"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def posted(self, path: str) -> list[Any]:
        return [body for method, asked, body in self.asked if (method, asked) == ("POST", path)]


def drive(server: Server, body: Callable[[VllmAdapter], Awaitable[Any]], **options: Any) -> Any:
    """Run with an adapter of this server; return what `body` returns."""

    async def main() -> Any:
        transport = httpx.MockTransport(server.answer)
        adapter = VllmAdapter("http://engine", name="one", transport=transport, **options)
        try:
            return await body(adapter)
        finally:
            await adapter.close()

    return asyncio.run(main())


def models_with(item: LoraItem) -> httpx.Response:
    """List the base model and this LoRA."""
    cards = recorded("models, one LoRA loaded").json()
    cards["data"][1] |= {"id": item.name, "root": str(item.path)}
    return httpx.Response(200, json=cards)
