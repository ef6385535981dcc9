"""A server for tests of the SGLang adapter: it answers as a real one has, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from scalesim_adapters.base import EngineInfo, Item, LoraItem, PrefixItem, Tier
from scalesim_adapters.sglang.adapter import SglangAdapter

GOLDEN = json.loads((Path(__file__).parent / "golden" / "sglang-0.5.23.json").read_text())
INFO = GOLDEN["server_info"]
METRICS = "\n".join(GOLDEN["metrics"]) + "\n"
GENERATE, ABORT, CLOSE = "/generate", "/abort_request", "/close_session"
LOAD, UNLOAD = "/load_lora_adapter", "/unload_lora_adapter"
MODELS = "/v1/models"
ITEM = PrefixItem("town/ann", "base", tuple(range(64)))
Drive = Callable[[SglangAdapter], Awaitable[Any]]


def recorded(what: str) -> httpx.Response:
    """Return an answer that a real server gave."""
    answer = next(answer for answer in GOLDEN["http"] if answer["what"] == what)
    if isinstance(answer["body"], str):
        return httpx.Response(answer["status"], text=answer["body"])
    return httpx.Response(answer["status"], json=answer["body"])


def info_with(**changes: Any) -> httpx.Response:
    """Return what a server tells of itself that was started with other arguments."""
    return httpx.Response(200, json={**INFO, **changes})


class Server:
    """Answers with what a real server said, unless told otherwise, and keeps what it was asked."""

    def __init__(self, **answers: httpx.Response | Exception) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self._answers: dict[str, httpx.Response | Exception] = {
            "/server_info": info_with(kv_events_config=None),
            "/v1/loads": recorded("loads"),
            "/metrics": httpx.Response(200, text=METRICS),
            "/tokenize": recorded("tokenize a text"),
            MODELS: recorded("models, no LoRA loaded"),
            GENERATE: recorded("request, warm: both pages cached"),
            LOAD: recorded("load a LoRA"),
            UNLOAD: recorded("unload a LoRA"),
            CLOSE: recorded("close a session"),
            ABORT: recorded("abort a request that isn't there"),
        } | answers

    async def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.asked.append((request.method, path, json.loads(request.content) if request.content else None))
        answer = self._answers.get(path, recorded("a route that doesn't exist"))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def posted(self, path: str) -> list[Any]:
        return [body for method, asked, body in self.asked if (method, asked) == ("POST", path)]


def drive(server: Server, body: Drive, **options: Any) -> Any:
    """Run with an adapter of this server; return what `body` returns."""

    async def main() -> Any:
        adapter = SglangAdapter(
            "http://engine", name="one", transport=httpx.MockTransport(server.answer), **options
        )
        try:
            return await body(adapter)
        finally:
            await adapter.close()

    return asyncio.run(main())


def load(item: Item) -> Drive:
    return lambda adapter: adapter.load(item, Tier.DEVICE, deadline=5)


def evict(item: Item, to: Tier = Tier.HOST) -> Drive:
    return lambda adapter: adapter.evict(item, to, deadline=5)


def probe(server: Server, **options: Any) -> EngineInfo:
    info = drive(server, lambda adapter: adapter.probe(), **options)
    assert isinstance(info, EngineInfo)
    return info


def models_with(item: LoraItem) -> httpx.Response:
    """List the base model and this LoRA."""
    cards = recorded("models, one LoRA loaded").json()
    cards["data"][1] |= {"id": item.name, "root": str(item.path)}
    return httpx.Response(200, json=cards)
