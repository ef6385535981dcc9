"""The daemon put together: what is started, in which order, and stopped in the reverse."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI

from scalesim_daemon.api import build_api
from scalesim_daemon.broadcast import Broadcast
from scalesim_daemon.driver import Driver
from scalesim_daemon.engines import connect
from scalesim_daemon.feed import Feed
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.loras import LoraLibrary
from scalesim_daemon.recording.recorder import open_recorder
from scalesim_daemon.segments import provide_segments
from scalesim_daemon.settings import (
    ApiSettings,
    ConfigError,
    EngineSettings,
    LogSettings,
    Settings,
    SschedulerSettings,
)
from scalesim_daemon.view import EngineView

log = structlog.get_logger(__name__)


async def serve(settings: Settings) -> None:
    """Run the daemon until SIGINT or SIGTERM tells it to stop."""
    configure_logging(settings.log)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with running(settings) as sidecar:
        log.info("ready", api=sidecar.api_url, feed=sidecar.feed_address, engines=list(sidecar.drivers))
        await stop.wait()
        log.info("stopping")


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Sidecar]:
    """Start all parts, yield the sidecar, and stop them in the reverse order. Engines keep what they have.

    A part that fails ends the daemon: its supervisor starts it anew, and engines and simulations don't mind.
    """
    async with AsyncExitStack() as stack:
        provide_segments(settings.engines)
        front_door = _front_door(settings.sscheduler)
        if front_door is not None:
            stack.callback(front_door.close)
        library = LoraLibrary.open(settings.loras)
        stack.callback(library.close)
        sidecar = Sidecar(settings, library, None, settings.mode)
        sidecar.recorder = open_recorder(settings.record)
        if sidecar.recorder is not None:
            stack.callback(sidecar.recorder.close)
        mirroring = await _open_store(stack, sidecar)
        feed = Feed(sidecar, settings.feed.bind, settings.feed.subscribe)
        stack.callback(feed.close)
        sidecar.feed_address = feed.address
        if settings.broadcast.bind is not None:
            sidecar.broadcast = Broadcast(settings.broadcast.bind, sidecar.population)
            stack.callback(sidecar.broadcast.close)
        for engine in settings.engines:
            sidecar.drivers[engine.name] = _driver(sidecar, engine)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        for part in (
            *mirroring,
            feed.run(),
            sidecar.run(),
            *(driver.run() for driver in sidecar.drivers.values()),
        ):
            stack.callback(group.create_task(part).cancel)
        app = build_api(sidecar)
        sidecar.api_url = await _serve(stack, group, _Server(_api_config(app, settings.api)))
        if front_door is not None:
            await _serve(stack, group, _Server(_api_config(app, settings.api)), [front_door])
        yield sidecar


async def _open_store(stack: AsyncExitStack, sidecar: Sidecar) -> Sequence[Coroutine[None, None, None]]:
    """Take over what is kept in Redis, and return what keeps it in step; nothing where none is wanted. Its client and a
    Valkey take memory that not every machine can spare: they are loaded where they are used."""
    redis = sidecar.settings.redis
    if not redis.enabled:
        log.info(
            "no Redis: pins and the operator's mode are lost when the daemon ends, and dues are in the API alone"
        )
        return ()
    from scalesim_daemon.store import Mirror

    url = await _start_valkey(stack, redis.data_dir) if redis.url is None else redis.url
    sidecar.mirror = Mirror(url)
    await _read_intents(sidecar, url)
    return (sidecar.mirror.run(sidecar.due_records),)


async def _start_valkey(stack: AsyncExitStack, data_dir: Path) -> str:
    from scalesim_daemon.embedded import EmbeddedValkey

    valkey = EmbeddedValkey(data_dir)
    await valkey.start()
    stack.push_async_callback(valkey.stop)
    return valkey.url


async def _read_intents(sidecar: Sidecar, url: str) -> None:
    """Take over what operators decided. Without Redis the daemon starts all the same, and says what it lacks."""
    from scalesim_daemon.intents import Intents, StoreUnavailable

    intents = Intents(url)
    try:
        sidecar.pins = await intents.pins()
        sidecar.mode = await intents.mode() or sidecar.mode
        warning = await intents.eviction_warning()
        if warning is not None:
            log.warning(warning)
    except StoreUnavailable as error:
        log.warning("starting without Redis: pins and mode are not known", error=str(error))
    finally:
        await intents.close()


def _driver(sidecar: Sidecar, engine: EngineSettings) -> Driver:
    view = EngineView(engine.name, quiet_share=sidecar.settings.planner.quiet_share)
    view.loras.device_places = engine.lora_slots
    view.loras.host_places = engine.lora_host_places
    view.model_bytes = engine.model_bytes
    view.chunk_tokens = sidecar.settings.planner.chunk_tokens
    return Driver(connect(engine), view, sidecar.population, sidecar.library, sidecar.wake, sidecar.record)


class _Server(uvicorn.Server):
    """A server that leaves signals to the daemon."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _api_config(app: FastAPI, settings: ApiSettings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=3,
    )


def _front_door(settings: SschedulerSettings) -> socket.socket | None:
    """Return what listens where the paper's front end posts to, on this host alone; None where that is off. Raises
    `ConfigError` where the port can't be had."""
    if not settings.enabled:
        return None
    try:
        return socket.create_server(("127.0.0.1", settings.port))
    except OSError as error:
        raise ConfigError(f"sscheduler.port: {settings.port}: {error.strerror}") from error


async def _serve(
    stack: AsyncExitStack,
    group: asyncio.TaskGroup,
    server: _Server,
    sockets: list[socket.socket] | None = None,
) -> str:
    """Start a server that ends with the stack, and return its URL."""
    task = group.create_task(server.serve(sockets))
    stack.push_async_callback(_stop_api, server, task)
    return await _started(server, task)


async def _started(server: _Server, task: asyncio.Task[None]) -> str:
    """Wait until the API listens, and return its URL."""
    while not server.started:
        if task.done():
            await task
            raise RuntimeError("the API did not start: is its port in use?")
        await asyncio.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    return f"http://{host}:{port}"


async def _stop_api(server: _Server, task: asyncio.Task[None]) -> None:
    server.should_exit = True
    await asyncio.wait([task])


def configure_logging(settings: LogSettings) -> None:
    """Log one structured line per change to standard error, as text or JSON."""
    renderer: Any = (
        structlog.processors.JSONRenderer() if settings.format == "json" else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[settings.level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
