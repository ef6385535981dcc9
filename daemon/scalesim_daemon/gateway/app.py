"""The gateway's ASGI application: a request in, the engine's answer out, chunk by chunk."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager

import structlog
from starlette.types import Receive, Scope, Send

from scalesim_daemon.gateway.answers import Refused, refuse, unreachable
from scalesim_daemon.gateway.callers import agent_of
from scalesim_daemon.gateway.notes import Notes
from scalesim_daemon.gateway.requests import ClientGone, Request, read
from scalesim_daemon.gateway.routes import Routes
from scalesim_daemon.gateway.tags import tagged
from scalesim_daemon.gateway.upstream import Answer, EngineGone, Upstream
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.setting_values import redacted

# As long as an engine may take to load a LoRA.
HELD_SECONDS = 30.0
LOOK_SECONDS = 0.005
MOST_ASKED = 2

log = structlog.get_logger(__name__)


class BrokeOff(Exception):
    """The engine went away in the middle of its answer: the client's connection has to break, too."""


class Gateway:
    """In front of all engines of a sidecar, on its event loop."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._settings = sidecar.settings
        self._urls = {engine.name: engine.url for engine in sidecar.settings.engines}
        self._routes = Routes(sidecar.drivers, sidecar.homes.home)
        self._notes = Notes(sidecar)
        self._upstream = Upstream()

    async def run(self) -> None:
        """Keep time until cancelled."""
        await self._notes.run()

    async def close(self) -> None:
        """Tell of the last calls, and close all connections to engines."""
        self._notes.tell()
        await self._upstream.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            request = await read(scope, receive)
            settings = self._settings
            agent = agent_of(request, settings.gateway, settings.sscheduler) if request.generates else None
            if self._sidecar.recorder is not None and request.method == "POST":
                self._sidecar.recorder.request(agent, request.path, request.fields)
            with self._noted(request, agent):
                await _while_connected(receive, self._serve(request, agent, send))
        except Refused as refused:
            await refuse(send, refused)
        except (ClientGone, BrokeOff):
            # The server closes the connection of an answer that isn't complete.
            return

    @contextmanager
    def _noted(self, request: Request, agent: str | None) -> Iterator[None]:
        """Count a call, and have no speculative work begin meanwhile."""
        if not request.generates:
            yield
        elif agent is None:
            self._sidecar.counts["calls_of_nobody"] += 1
            self._sidecar.strangers += 1
            try:
                yield
            finally:
                self._sidecar.strangers -= 1
                self._sidecar.wake()
        else:
            self._sidecar.counts["calls_of_agents"] += 1
            note = self._notes.started(agent, self._routes.known(request.model))
            try:
                yield
            finally:
                self._notes.finished(note)

    async def _serve(self, request: Request, agent: str | None, send: Send) -> None:
        """Ask an engine, and while nothing was answered once more: the same, which may just have closed an idle
        connection, or where that is gone another. No request is seen by engines more than twice: it may be what ends
        them."""
        sent = request if agent is None else tagged(request, agent)
        engines, failures, asked = self._routes.order(agent, request.model)[:2], [], 0
        while engines and asked < MOST_ASKED:
            engine = engines[0]
            try:
                await self._ask(engine, agent, sent, send)
                return
            except EngineGone as gone:
                failures.append(redacted(f"{engine} at {self._urls[engine]} ({gone})"))
                asked += gone.asked
                if not gone.asked or asked == MOST_ASKED:
                    self._sidecar.drivers[engine].watch.lost(str(gone))
                    del engines[0]
        raise unreachable(failures)

    async def _ask(self, engine: str, agent: str | None, request: Request, send: Send) -> None:
        driver, url = self._sidecar.drivers[engine], self._urls[engine] + request.target
        with self._routes.serving(engine, agent):
            if agent is not None and request.session not in (None, agent):
                driver.view.called(request.session, agent)
            await self._hold(engine, request.model)
            if request.method == "POST":
                driver.cancel("a call came through the gateway")
            async with self._upstream.ask(request.method, url, request.headers, request.body) as answer:
                await _pass_on(engine, answer, send)

    async def _hold(self, engine: str, model: str | None) -> None:
        """Wait while the model is a LoRA that is being loaded there: before that nobody knows its name."""
        info = self._sidecar.drivers[engine].view.info
        if model is None or (info is not None and model in info.base_models):
            # Whoever gives a LoRA the name of a base model holds nobody up.
            return
        deadline = asyncio.get_running_loop().time() + HELD_SECONDS
        held = False
        while self._sidecar.brings_lora(engine, model) and asyncio.get_running_loop().time() < deadline:
            if not held:
                self._sidecar.counts["calls_held"] += 1
                held = True
            await asyncio.sleep(LOOK_SECONDS)


async def _pass_on(engine: str, answer: Answer, send: Send) -> None:
    """Send an answer on as it comes. Nothing is sent before its body begins, so that until then another engine can be
    asked: raises `EngineGone` until then, and later `BrokeOff`."""
    start = {"type": "http.response.start", "status": answer.status, "headers": answer.headers}
    begun = False
    try:
        async for chunk in answer.chunks():
            if not begun:
                await send(start)
                begun = True
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    except EngineGone as gone:
        if not begun:
            raise
        log.warning("answer broke off", engine=engine, error=str(gone))
        raise BrokeOff from gone
    if not begun:
        await send(start)
    await send({"type": "http.response.body", "body": b""})


async def _while_connected(receive: Receive, work: Coroutine[None, None, None]) -> None:
    """Do the work, or stop it where the client goes away first."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.wait({working, leaving})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
