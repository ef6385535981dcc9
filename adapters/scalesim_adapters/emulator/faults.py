"""Faults that tests ask for, by `POST /emulator/faults` with one of these as JSON, told apart by `type`."""

from __future__ import annotations

import asyncio

import msgspec
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from scalesim_adapters.emulator.answers import error_body

CONTROL = "/emulator/faults"
TRUTH = "/emulator/truth"
"""What is where, as the engine itself has it: what no engine tells, and a test is to know."""


class Status(msgspec.Struct, tag="status", frozen=True):
    """Answer the next `times` requests to `route` with `status`."""

    route: str
    status: int = 500
    times: int = 1


class Hang(msgspec.Struct, tag="hang", frozen=True):
    """Never answer the next `times` requests to `route`."""

    route: str
    times: int = 1


class Delay(msgspec.Struct, tag="delay", frozen=True):
    """Answer the next `times` requests to `route` `seconds` late, in real time."""

    route: str
    seconds: float
    times: int = 1


class LoseBatches(msgspec.Struct, tag="lose_batches", frozen=True):
    """Don't send the next `times` batches of KV events; a replay still has them."""

    times: int = 1


class Stall(msgspec.Struct, tag="stall", frozen=True):
    """Let the engine take `steps` more steps, then no more until it is told otherwise."""

    steps: int = 0


class Restart(msgspec.Struct, tag="restart", frozen=True):
    """End at once, as if killed, and start again: caches and names are lost, the feed counts from 0."""


class Die(msgspec.Struct, tag="die", frozen=True):
    """End at once, as if killed."""


RouteFault = Status | Hang | Delay
Fault = RouteFault | LoseBatches | Stall | Restart | Die


class RouteFaults:
    """An ASGI layer that answers, delays or swallows requests in the application's place."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._pending: list[RouteFault] = []

    @property
    def pending(self) -> list[RouteFault]:
        """What is still to happen."""
        return list(self._pending)

    def add(self, fault: RouteFault) -> None:
        """Let a fault happen to the next requests of its route, after those that were added before."""
        if fault.times > 0:
            self._pending.append(fault)

    def clear(self) -> None:
        """Let no more faults happen."""
        self._pending.clear()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        match self._next(scope):
            case Status(route, status):
                answer = JSONResponse(
                    error_body(f"injected at {route}", "InternalServerError", status), status
                )
                await answer(scope, receive, send)
            case Hang():
                while (await receive())["type"] != "http.disconnect":
                    pass
            case Delay(_, seconds):
                await asyncio.sleep(seconds)
                await self._app(scope, receive, send)
            case None:
                await self._app(scope, receive, send)

    def _next(self, scope: Scope) -> RouteFault | None:
        if scope["type"] != "http":
            return None
        for index, fault in enumerate(self._pending):
            if fault.route == scope["path"]:
                if fault.times > 1:
                    self._pending[index] = msgspec.structs.replace(fault, times=fault.times - 1)
                else:
                    del self._pending[index]
                return fault
        return None
