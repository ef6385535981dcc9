"""The daemon put together: what is started, in which order, and stopped in the reverse."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
import uvicorn

from scalesim_daemon.admin.access import read_tokens
from scalesim_daemon.admin.reload import NotReadable, reload
from scalesim_daemon.admin.steering import switch_mode
from scalesim_daemon.admin.stream import Hub
from scalesim_daemon.allocation import map_large_blocks
from scalesim_daemon.api import build_api, build_front_door
from scalesim_daemon.broadcast import Broadcast
from scalesim_daemon.collector import collected_seldom
from scalesim_daemon.connections import Places, bounded
from scalesim_daemon.dashboard.routes import keep_history
from scalesim_daemon.driver import Driver
from scalesim_daemon.engines import connect
from scalesim_daemon.feed import Feed
from scalesim_daemon.fleet.population import SharedPopulation
from scalesim_daemon.logs import configure_logging
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.lora_forgetting import keep_loras_few
from scalesim_daemon.loras import LoraLibrary
from scalesim_daemon.population import Population
from scalesim_daemon.recording.recorder import open_recorder
from scalesim_daemon.segments import provide_segments
from scalesim_daemon.settings import ConfigError, EngineSettings, Settings
from scalesim_daemon.tracing import open_traces
from scalesim_daemon.view import EngineView

if TYPE_CHECKING:  # Where nothing is kept in Redis its client isn't loaded.
    from scalesim_daemon.intents import Intents

LAST_ANSWERS_SECONDS = 3
INTENTS_SECONDS = 1.0

log = structlog.get_logger(__name__)


async def serve(settings: Settings, reread: Callable[[], Settings] | None = None) -> None:
    """Run the daemon until SIGINT or SIGTERM tells it to stop. At SIGHUP `reread` gives the settings anew."""
    configure_logging(settings.log)
    _allow_files()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    # What has just read its configuration has no need to read it again.
    loop.add_signal_handler(signal.SIGHUP, log.debug, "still starting")
    async with running(settings, reread) as sidecar:
        with collected_seldom():
            loop.add_signal_handler(signal.SIGHUP, partial(_reload, sidecar))
            more = {"gateway": sidecar.gateway_url} if sidecar.gateway_url else {}
            log.info(
                "ready", api=sidecar.api_url, feed=sidecar.feed_address, engines=list(sidecar.drivers), **more
            )
            await stop.wait()
            log.info("stopping")


def _allow_files() -> None:
    """Let as many files and connections be open as may be: many simulations need more than a shell's usual 1,024."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _reload(sidecar: Sidecar) -> None:
    with suppress(ConfigError, NotReadable):  # The log says why.
        reload(sidecar)


@asynccontextmanager
async def running(settings: Settings, reread: Callable[[], Settings] | None = None) -> AsyncIterator[Sidecar]:
    """Start all parts, yield the sidecar, and stop them in the reverse order. Engines keep what they have.

    A part that fails ends the daemon: its supervisor starts it anew, and engines and simulations don't mind.
    """
    map_large_blocks()
    tokens = read_tokens(settings.api)
    async with AsyncExitStack() as stack:
        doors = _doors(stack, settings)
        provide_segments(settings.engines)
        library = LoraLibrary.open(settings.loras, settings.lora_roots)
        stack.callback(library.close)
        population = SharedPopulation() if settings.fleet.enabled else Population()
        sidecar = Sidecar(settings, library, None, settings.mode, population=population, tokens=tokens)
        sidecar.reread = reread
        sidecar.recorder = open_recorder(settings.record)
        if sidecar.recorder is not None:
            stack.callback(sidecar.recorder.close)
        sidecar.traces = open_traces(os.environ)
        if sidecar.traces is not None:
            stack.push_async_callback(asyncio.to_thread, sidecar.traces.close)
        mirroring = await _open_store(stack, sidecar)
        feed = Feed(sidecar, settings.feed.bind, settings.feed.subscribe, settings.feed.curve)
        stack.callback(feed.close)
        sidecar.feed_address = feed.address
        if settings.broadcast.bind is not None:
            sidecar.broadcast = Broadcast(
                settings.broadcast.bind, sidecar.population, settings.broadcast.curve
            )
            stack.callback(sidecar.broadcast.close)
        for engine in settings.engines:
            sidecar.drivers[engine.name] = connect_driver(sidecar, engine)
        keeping = _open_fleet(stack, sidecar)
        group = await stack.enter_async_context(asyncio.TaskGroup())
        sidecar.hub = Hub(sidecar)
        for part in (
            *mirroring,
            *keeping,
            sidecar.hub.run(),
            keep_history(sidecar),
            keep_loras_few(sidecar),
            feed.run(),
            sidecar.run(),
            *(driver.run() for driver in sidecar.drivers.values()),
        ):
            stack.callback(group.create_task(part).cancel)
        app = build_api(sidecar)
        proxies = [str(network) for network in settings.api.trusted_proxies]
        sidecar.api_url = await _serving(stack, group, app, doors["api"], proxies)
        # A server that stops waits for its streams.
        stack.callback(sidecar.hub.close)
        if "sscheduler" in doors:
            await _serving(stack, group, build_front_door(sidecar), doors["sscheduler"])
        if "gateway" in doors:
            sidecar.gateway_url = await _gateway(stack, group, sidecar, doors["gateway"])
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
    from scalesim_daemon.intents import Intents, StoreUnavailable
    from scalesim_daemon.store import Mirror

    url = await _start_valkey(stack, redis.data_dir) if redis.url is None else redis.url
    fleet = sidecar.settings.fleet.enabled
    sidecar.mirror = Mirror(url, cluster=redis.cluster, alone=not fleet)
    sidecar.intents = intents = Intents(url, cluster=redis.cluster)
    stack.push_async_callback(intents.close)
    known = True
    try:
        await _take_over(sidecar, intents)
    except StoreUnavailable as error:
        log.warning("starting without Redis: pins and mode are not known yet", error=str(error))
        known = False
    parts = [sidecar.mirror.run(sidecar.due_records), _keep_intents(sidecar, intents, known)]
    if isinstance(sidecar.population, SharedPopulation):
        from scalesim_daemon.fleet.shared import Shared

        sidecar.shared = sidecar.homes.shared = Shared(
            sidecar, sidecar.population, url, cluster=redis.cluster
        )
        parts.append(sidecar.shared.run())
    return parts


async def _start_valkey(stack: AsyncExitStack, data_dir: Path) -> str:
    from scalesim_daemon.embedded import EmbeddedValkey

    valkey = EmbeddedValkey(data_dir)
    await valkey.start()
    stack.push_async_callback(valkey.stop)
    return valkey.url


async def _take_over(sidecar: Sidecar, intents: Intents) -> None:
    """Let hold what operators decided before the start. Raises `StoreUnavailable`."""
    before = sidecar.mode
    pins, mode, warning = await intents.pins(), await intents.mode(), await intents.eviction_warning()
    sidecar.pins = {**pins, **sidecar.pins}
    if mode is not None and mode is not before and sidecar.mode is before:
        log.info("an operator's mode holds, not the configured one", mode=mode, configured=before)
        sidecar.mode = mode
    if warning is not None:
        log.warning(warning)


async def _keep_intents(sidecar: Sidecar, intents: Intents, known: bool) -> None:
    """Write what Redis didn't take or has lost, and read what it didn't give, as soon as it answers."""
    from scalesim_daemon.intents import StoreUnavailable
    from scalesim_daemon.redis_client import heed

    while True:
        heed()
        await asyncio.sleep(INTENTS_SECONDS)
        with suppress(StoreUnavailable):
            await intents.catch_up()
            if not known:
                await _take_over(sidecar, intents)
                known = True
            else:
                await _compare_intents(sidecar, intents)


async def _compare_intents(sidecar: Sidecar, intents: Intents) -> None:
    """Have what Redis has lost written again, and let hold what operators decide at other daemons. Raises
    `StoreUnavailable`."""
    said = intents.said
    decided = await intents.decided()
    if intents.said != said:
        return  # An operator has spoken here meanwhile, and it is being written.
    ours = sidecar.mode if sidecar.mode is not sidecar.settings.mode else None
    if decided is None:
        await intents.restate(sidecar.pins, ours)
        return
    pins, mode = decided
    if sidecar.shared is None:
        # Nobody else takes words back: what is lacking went with a primary whose replica had not followed.
        if (mode or sidecar.settings.mode) is not sidecar.mode:
            await intents.set_mode(ours)
        lacking = {key: sidecar.pins[key] for key in sidecar.pinned() if pins.get(key) != sidecar.pins[key]}
        if lacking:
            await intents.pin_again(lacking)
        return
    sidecar.pins = pins
    mode = mode or sidecar.settings.mode
    if mode is not sidecar.mode:
        log.info("an operator's mode holds, set at another daemon", mode=mode, before=sidecar.mode)
        switch_mode(sidecar, mode)
    sidecar.wake()


def _open_fleet(stack: AsyncExitStack, sidecar: Sidecar) -> Sequence[Coroutine[None, None, None]]:
    """Return what keeps this daemon's leases, nothing where it has its engines to itself. What is entered later has
    ended when the leases are handed over."""
    settings = sidecar.settings
    if not settings.fleet.enabled:
        return ()
    from scalesim_daemon.fleet.lease_keeper import Keeper
    from scalesim_daemon.fleet.mishaps import Mishaps
    from scalesim_daemon.redis_client import open_client

    redis = settings.redis
    # Connections of its own: nothing else makes a renewal wait.
    client = open_client(str(redis.url), cluster=redis.cluster, connect_seconds=1, answer_seconds=2)
    stack.push_async_callback(client.aclose)
    standby = [engine.name for engine in settings.engines if engine.standby]
    sidecar.keeper = Keeper(
        client, settings.fleet, sidecar.drivers, standby, sidecar.wake, Mishaps(sidecar.counts)
    )
    stack.push_async_callback(sidecar.keeper.close)
    return (sidecar.keeper.run(),)


def connect_driver(sidecar: Sidecar, engine: EngineSettings) -> Driver:
    """Return the driver of one engine; it connects when it runs."""
    view = EngineView(engine.name, quiet_share=sidecar.settings.planner.quiet_share)
    view.loras.device_places = engine.lora_slots
    view.loras.host_places = engine.lora_host_places
    view.model_bytes = engine.model_bytes
    view.chunk_tokens = sidecar.settings.planner.chunk_tokens
    view.standby = engine.standby
    fleet = sidecar.settings.fleet
    sender = f"{fleet.name}-{engine.name}" if fleet.enabled else None
    return Driver(
        connect(engine, sender), view, sidecar.population, sidecar.library, sidecar.wake, sidecar.record
    )


class _Server(uvicorn.Server):
    """A server that leaves signals to the daemon."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def _gateway(
    stack: AsyncExitStack, group: asyncio.TaskGroup, sidecar: Sidecar, door: socket.socket
) -> str:
    # What it needs is loaded by those alone who want one: it takes time and memory.
    from scalesim_daemon.gateway.app import Gateway

    gateway = Gateway(sidecar)
    stack.push_async_callback(gateway.close)
    stack.callback(group.create_task(gateway.run()).cancel)
    # Answers have the engine's headers alone.
    return await _serving(stack, group, gateway, door, server_header=False, date_header=False)


def _doors(stack: AsyncExitStack, settings: Settings) -> dict[str, socket.socket]:
    """Take the ports of all HTTP servers, by section of the settings. Raises `ConfigError` where one is in use."""
    wanted = {"api": (settings.api.host, settings.api.port)}
    if settings.sscheduler.enabled:
        wanted["sscheduler"] = ("127.0.0.1", settings.sscheduler.port)
    if settings.gateway.enabled:
        wanted["gateway"] = (settings.gateway.host, settings.gateway.port)
    doors = {}
    for section, (host, port) in wanted.items():
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            doors[section] = socket.create_server((host, port), family=family)
        except OSError as error:
            raise ConfigError(f"{section}.port: {port} of {host}: {error.strerror or error}") from error
        # Connections have it from here: asyncio sees to it for sockets alone that name their protocol, and without it
        # what follows a header waits for the client's acknowledgement, 40 ms.
        doors[section].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stack.callback(doors[section].close)
    return doors


async def _serving(
    stack: AsyncExitStack,
    group: asyncio.TaskGroup,
    app: Any,
    door: socket.socket,
    proxies: Sequence[str] = (),
    **options: bool,
) -> str:
    """Serve an ASGI application until the stack unwinds; return its URL once it answers. Of `proxies` alone is believed
    for whom they ask: uvicorn would believe this host, or what a variable of its own names."""
    server = _Server(
        uvicorn.Config(
            app,
            http=bounded(Places()),
            log_config=None,
            log_level="warning",
            access_log=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=LAST_ANSWERS_SECONDS,
            forwarded_allow_ips=list(proxies),
            **options,  # type: ignore[arg-type]  # mypy spreads bools over every parameter
        )
    )
    task = group.create_task(server.serve([door]))
    stack.push_async_callback(_stop, server, task)
    while not server.started:
        if task.done():
            await task
            raise RuntimeError("a server ended before it began")
        await asyncio.sleep(0.01)
    host, port = door.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _stop(server: _Server, task: asyncio.Task[None]) -> None:
    server.should_exit = True
    await asyncio.wait([task])
