"""A server that gives an engine's recorded answers, and keeps what it was asked: what adapters are tested on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import httpx

from scalesim_adapters.base import LoraItem

MODELS = "/v1/models"
Answer = httpx.Response | Exception


class Closable(Protocol):
    async def close(self) -> None: ...


Adapter = TypeVar("Adapter", bound=Closable)


class Golden:
    """What a real server said, from a file of this folder's `golden`."""

    def __init__(self, name: str) -> None:
        self.all: dict[str, Any] = json.loads((Path(__file__).parent / "golden" / name).read_text())
        self.metrics = "\n".join(self.all["metrics"]) + "\n"

    def recorded(self, what: str) -> httpx.Response:
        """Return an answer over HTTP."""
        answer = next(answer for answer in self.all["http"] if answer["what"] == what)
        if isinstance(answer["body"], str):
            return httpx.Response(answer["status"], text=answer["body"])
        return httpx.Response(answer["status"], json=answer["body"])

    def models_with(self, item: LoraItem) -> httpx.Response:
        """List the base model and this LoRA."""
        cards = self.recorded("models, one LoRA loaded").json()
        cards["data"][1] |= {"id": item.name, "root": str(item.path)}
        return httpx.Response(200, json=cards)


class RecordedServer:
    """Answers each path with what it was given for it, and keeps what it was asked."""

    def __init__(self, golden: Golden, answers: dict[str, Answer]) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.queries: list[dict[str, str]] = []
        self.headers: list[httpx.Headers] = []
        self._golden = golden
        self._answers = answers

    async def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.asked.append((request.method, path, json.loads(request.content) if request.content else None))
        self.queries.append(dict(request.url.params))
        self.headers.append(request.headers)
        answer = self.find(request.method, path)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def find(self, method: str, path: str) -> Answer:
        return self._answers.get(path, self._golden.recorded("a route that doesn't exist"))

    def posted(self, path: str) -> list[Any]:
        return [body for method, asked, body in self.asked if (method, asked) == ("POST", path)]


def driven(
    make: Callable[..., Adapter],
    server: RecordedServer,
    body: Callable[[Adapter], Awaitable[Any]],
    options: dict[str, Any],
) -> Any:
    """Run with an adapter of this server; return what `body` returns."""

    async def main() -> Any:
        transport = httpx.MockTransport(server.answer)
        adapter = make("http://engine", name="one", transport=transport, **options)
        try:
            return await body(adapter)
        finally:
            await adapter.close()

    return asyncio.run(main())
