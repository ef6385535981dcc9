"""The HTTP routes of an emulated engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from scalesim_adapters.emulator import answers, requests, tokens
from scalesim_adapters.emulator.answers import Answer
from scalesim_adapters.emulator.chain import Chain
from scalesim_adapters.emulator.config import VERSION
from scalesim_adapters.emulator.engine import Engine, EngineDead, Ticket
from scalesim_adapters.emulator.loras import Lora, LoraUnreadable
from scalesim_adapters.emulator.metrics import exposition
from scalesim_adapters.emulator.requests import Body, Generation, Refused

T = TypeVar("T")

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class EngineRoutes:
    """Answers for one engine. `started` is in seconds since the epoch."""

    def __init__(self, engine: Engine, started: float) -> None:
        self._engine = engine
        self._config = engine.config
        self._started = started
        self._loading = asyncio.Lock()
        self._awake = asyncio.Event()
        self._awake.set()

    def app(self) -> FastAPI:
        """Return the application."""
        app = FastAPI(openapi_url=None)
        app.add_exception_handler(Refused, _refused)
        app.add_exception_handler(EngineDead, _dead)
        app.add_api_route("/health", self.health)
        app.add_api_route("/version", self.version)
        app.add_api_route("/v1/models", self.models)
        app.add_api_route("/metrics", self.metrics)
        app.add_api_route("/load", self.load)
        app.add_api_route("/kv_event_sources", self.kv_event_sources)
        for path, handler in {
            "/v1/completions": self.complete,
            "/v1/chat/completions": self.chat,
            "/tokenize": self.tokenize,
            "/v1/load_lora_adapter": self.load_lora,
            "/v1/unload_lora_adapter": self.unload_lora,
        }.items():
            app.add_api_route(path, handler, methods=["POST"], response_model=None)
        if self._config.dev_mode:
            app.add_api_route("/reset_prefix_cache", self.reset_prefix_cache, methods=["POST"])
            app.add_api_route("/is_sleeping", self.is_sleeping)
            app.add_api_route("/sleep", self.sleep, methods=["POST"])
            app.add_api_route("/wake_up", self.wake_up, methods=["POST"])
        return app

    async def health(self) -> Response:
        """Tell whether the engine lives."""
        return Response(status_code=503 if self._engine.dead else 200)

    async def version(self) -> dict[str, str]:
        """Tell the version, which says that this is an emulator."""
        return {"version": VERSION}

    async def models(self) -> dict[str, Any]:
        """List the names that requests can use."""
        return answers.models(self._config, list(self._engine.loras.values()), int(self._started))

    async def metrics(self) -> Response:
        """Tell the engine's counts."""
        return Response(exposition(self._engine, self._started), media_type=METRICS_TYPE)

    async def load(self) -> dict[str, int]:
        """Tell how many requests there are, as vLLM does with `--enable-server-load-tracking`."""
        scheduler = self._engine.scheduler
        return {"server_load": len(scheduler.running) + len(scheduler.waiting)}

    async def kv_event_sources(self) -> dict[str, Any]:
        """Tell where the KV event feed is."""
        if self._config.endpoint is None:
            return {}
        source = {
            "enable_kv_cache_events": True,
            "publisher": "zmq",
            "endpoint": self._config.endpoint,
            "replay_endpoint": self._config.replay_endpoint,
            "buffer_steps": self._config.buffer_steps,
            "hwm": self._config.hwm,
            "max_queue_size": 100_000,
            "topic": self._config.topic,
        }
        return {"0": source}

    async def complete(self, request: Request) -> Response:
        """Continue a prompt."""
        body = requests.parse_body(await request.body())
        lora = self._lora_of(body)
        return await self._generate(
            request, requests.parse_completion(body, request.headers, self._config), lora
        )

    async def chat(self, request: Request) -> Response:
        """Continue a conversation."""
        body = requests.parse_body(await request.body())
        lora = self._lora_of(body)
        ask = requests.parse_chat(body, request.headers, self._config)
        return await self._generate(request, ask, lora, chat=True)

    async def tokenize(self, request: Request) -> Response:
        """Return the tokens of a text or a conversation."""
        body = requests.parse_body(await request.body())
        self._lora_of(body)
        ids = (
            requests.chat_prompt(body)
            if "messages" in body
            else tokens.encode(requests.text_field(body, "prompt"))
        )
        return JSONResponse(
            {
                "count": len(ids),
                "max_model_len": self._config.max_model_len,
                "tokens": ids,
                "token_strs": None,  # nosec B105
            }
        )

    async def load_lora(self, request: Request) -> Response:
        """Load a LoRA and give it a name."""
        body = requests.parse_body(await request.body())
        name, path = requests.text_field(body, "lora_name"), requests.text_field(body, "lora_path")
        async with self._loading:
            self._check_loadable(name, path)
            try:
                await self._engine.load_lora(name, path)
            except LoraUnreadable as error:
                raise _unloadable(name, error) from error
        return Response(f"Success: LoRA adapter '{name}' added successfully.")

    async def unload_lora(self, request: Request) -> Response:
        """Drop a LoRA's name."""
        name = requests.text_field(requests.parse_body(await request.body()), "lora_name")
        if name not in self._engine.loras:
            raise Refused(f"The lora adapter '{name}' cannot be found.", status=404, kind="NotFoundError")
        self._engine.unload_lora(name)
        return Response(f"Success: LoRA adapter '{name}' removed successfully.")

    async def reset_prefix_cache(self) -> dict[str, bool]:
        """Forget all cached blocks; a route of developer mode."""
        return {"success": await self._engine.clear_cache()}

    async def is_sleeping(self) -> dict[str, bool]:
        """Tell whether the model sleeps."""
        return {"is_sleeping": not self._awake.is_set()}

    async def sleep(self, level: int = 1) -> dict[str, Any]:
        """Hold all new requests and forget all blocks; meant for an engine that serves none."""
        self._awake.clear()
        await self._engine.clear_cache()
        return {"status": "sleeping", "level": level}

    async def wake_up(self) -> dict[str, str]:
        """Serve requests again."""
        self._awake.set()
        return {"status": "awake"}

    def _lora_of(self, body: Body) -> Lora | None:
        model = requests.model_of(body)
        if not model or model == self._config.model:
            return None
        if model not in self._engine.loras:
            message = f"The model `{model}` does not exist. Valid aliases: {self._config.model}."
            raise Refused(message, status=404, kind="NotFoundError", param="model")
        return self._engine.loras[model]

    def _check_loadable(self, name: str, path: str) -> None:
        kind = "InvalidUserInput"
        if not self._config.max_loras:
            raise Refused("LoRA is not enabled.", status=500, kind="InternalServerError")
        if not name or not path:
            raise Refused("Both 'lora_name' and 'lora_path' must be provided.", kind=kind)
        if name == self._config.model:
            raise Refused(f"The lora adapter '{name}' conflicts with a served base model.", kind=kind)
        if name in self._engine.loras:
            raise Refused(
                f"The lora adapter '{name}' has already been loaded. If you want to load the adapter in "
                "place, set 'load_inplace' to True.",
                kind=kind,
            )

    async def _generate(
        self, request: Request, ask: Generation, lora: Lora | None, *, chat: bool = False
    ) -> Response:
        await self._awake.wait()
        chain = Chain(self._config.block_size, ask.prompt, lora, ask.cache_salt, ask.session)
        ticket = self._engine.submit(
            chain, ask.max_tokens, priority=ask.priority, report_hits=ask.report_hits
        )
        answer = Answer(lora.name if lora else self._config.model, ask, ticket.sequence, chat=chat)
        if ask.stream:
            return StreamingResponse(self._stream(ticket, answer), media_type="text/event-stream")
        try:
            outputs = await _while_connected(request, _collect(ticket))
        finally:
            self._engine.abort(ticket)
        return JSONResponse(answer.whole(outputs)) if outputs else Response(status_code=499)

    async def _stream(self, ticket: Ticket, answer: Answer) -> AsyncIterator[bytes]:
        try:
            if opening := answer.opening():
                yield answers.sse(opening)
            first = True
            async for output in ticket:
                yield answers.sse(answer.token(output, first=first))
                first = False
            if closing := answer.closing():
                yield answers.sse(closing)
        except EngineDead as error:
            yield answers.sse(answers.error_body(str(error), "InternalServerError", 500))
        finally:
            self._engine.abort(ticket)
        yield answers.DONE


async def _collect(ticket: Ticket) -> list[Any]:
    return [output async for output in ticket]


async def _while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T | None:
    """Return the result of `work`, or None where the client goes away first, which ends the work."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        leaving.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _unloadable(name: str, error: LoraUnreadable) -> Refused:
    if error.missing:
        return Refused(f"Loading lora {name} failed: {error}", status=404, kind="NotFoundError")
    return Refused(
        f"Call to add_lora method failed: Worker failed with error '{error}', please check the stack trace "
        "above for the root cause",
        status=500,
        kind="InternalServerError",
    )


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse(answers.error_body(str(error), error.kind, error.status, error.param), error.status)


async def _dead(_: Request, error: Exception) -> Response:
    return JSONResponse(answers.error_body(str(error), "InternalServerError", 500), 500)
