"""One life of an emulated engine, from empty caches to its end."""

from __future__ import annotations

import asyncio
import socket
import time
from enum import Enum, auto
from typing import Any

import msgspec
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.background import BackgroundTask

from scalesim_adapters.emulator.app import EngineRoutes
from scalesim_adapters.emulator.chain import published
from scalesim_adapters.emulator.config import EmulatorConfig
from scalesim_adapters.emulator.engine import Engine, EngineDead
from scalesim_adapters.emulator.events import KVEvent
from scalesim_adapters.emulator.faults import (
    CONTROL,
    TRUTH,
    Die,
    Fault,
    LoseBatches,
    Restart,
    RouteFaults,
    Stall,
)
from scalesim_adapters.emulator.feed import Feed

GRACE = 1
"""Seconds that answers under way have when the engine stops."""


class End(Enum):
    """How an incarnation ends: with its answers sent, at once, or at once and followed by another."""

    STOP = auto()
    KILL = auto()
    RESTART = auto()


class Incarnation:
    """One life of the engine: empty caches, a feed that counts from 0, no LoRA names.

    To be made and run once, on one asyncio loop.
    """

    def __init__(self, config: EmulatorConfig, port: int) -> None:
        self._socket = _listen(port)
        self._feed = Feed(config) if config.endpoint else None
        self._engine = Engine(config, self._publish)
        self._end: asyncio.Future[End] = asyncio.get_running_loop().create_future()
        app = EngineRoutes(self._engine, time.time()).app()
        self._faults = RouteFaults(app)
        self._add_control(app)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._faults,
                log_config=None,
                log_level="warning",
                access_log=False,
                lifespan="off",
                ws="none",
                timeout_graceful_shutdown=GRACE,
            )
        )

    @property
    def port(self) -> int:
        """The TCP port of the loopback interface that answers."""
        port: int = self._socket.getsockname()[1]
        return port

    def end(self, how: End) -> None:
        """Let `run` return."""
        if not self._end.done():
            self._end.set_result(how)

    async def run(self) -> End:
        """Serve until the end, and tell which it was. The server of an engine that dies stops."""
        serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        stepping = asyncio.create_task(self._engine.run())
        replaying = asyncio.create_task(self._feed.serve_replays() if self._feed else asyncio.Event().wait())
        ends: list[asyncio.Future[Any]] = [serving, stepping, replaying, self._end]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        how = self._end.result() if self._end.done() else End.STOP
        if how is not End.STOP:
            self._drop_connections()
        await _cancel(stepping, replaying)
        self._server.should_exit = True
        await serving
        # Whoever connected while the server was ending is served by it still.
        self._drop_connections()
        if self._feed:
            self._feed.close()
        return how

    def _drop_connections(self) -> None:
        self._server.force_exit = True
        for connection in list(self._server.server_state.connections):
            if connection.transport:
                connection.transport.abort()

    def _publish(self, events: list[KVEvent]) -> None:
        if self._feed:
            self._feed.publish(events)

    def _add_control(self, app: FastAPI) -> None:
        app.add_api_route(CONTROL, self._list_faults)
        app.add_api_route(CONTROL, self._add_fault, methods=["POST"], response_model=None)
        app.add_api_route(CONTROL, self._clear_faults, methods=["DELETE"])
        app.add_api_route(TRUTH, self._truth)

    async def _truth(self) -> dict[str, Any]:
        """Count the cached copies of each block, by its hash as events carry it, and tell each LoRA's places."""
        engine = self._engine
        blocks = {str(published(block_hash)): copies for block_hash, copies in engine.cache.cached()}
        return {
            "blocks": blocks,
            "registered": {name: lora.path for name, lora in engine.loras.items()},
            "device": [lora.name for lora in engine.places.device],
            "host": [lora.name for lora in engine.places.host],
        }

    async def _list_faults(self) -> Response:
        return Response(msgspec.json.encode(self._faults.pending), media_type="application/json")

    async def _add_fault(self, request: Request) -> Response:
        try:
            fault = msgspec.json.decode(await request.body(), type=Fault)
        except msgspec.DecodeError as error:
            return JSONResponse({"detail": str(error)}, 422)
        match fault:
            case Restart():
                return self._answer_and_end(End.RESTART)
            case Die():
                return self._answer_and_end(End.KILL)
            case Stall(steps):
                self._engine.gate.admit(steps)
            case LoseBatches(times):
                if self._feed is None:
                    return JSONResponse({"detail": "the KV event feed is off"}, 422)
                self._feed.lose(times)
            case _:
                self._faults.add(fault)
        return Response(status_code=204)

    def _answer_and_end(self, how: End) -> Response:
        async def end() -> None:
            self.end(how)

        return Response(status_code=204, background=BackgroundTask(end))

    async def _clear_faults(self) -> Response:
        self._faults.clear()
        self._engine.gate.open()
        if self._feed:
            self._feed.lose(0)
        return Response(status_code=204)


def _listen(port: int) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", port), backlog=2048)
    # asyncio doesn't do it for sockets it didn't make, and answers of two writes would wait 40 ms for an ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, Exception) and not isinstance(outcome, EngineDead):
            raise outcome
