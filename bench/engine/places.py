"""The engines that variants are played on: each is started once, and found empty by every run."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

import httpx

from bench.background.replay import background
from bench.background.requests import Traffic
from bench.demo.prompts import FRESH_TOKENS, PREFIX_TOKENS, PromptBook
from bench.demo.runner import Run, Speaker, by_session, by_user, fill_cache, play
from bench.engine.classes import AGENTS
from bench.engine.kind import EngineKind, Site
from bench.engine.shuffle import shuffling
from bench.engine.variants import Place, Variant
from bench.rig.daemon import DaemonProcess
from bench.rig.process import free_port
from bench.workloads.base import Workload
from bench.workloads.mooncake import Arrival
from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer
from scalesim_client.events import AgentRegistered, Event, MemoryBound
from scalesim_client.publisher import Publisher

POPULATION_TOKENS: Final = AGENTS * (PREFIX_TOKENS + FRESH_TOKENS)
POOL_SHARE: Final = 0.25
TIER_SHARE: Final = 0.5
POOL_TOKENS: Final = int(POOL_SHARE * POPULATION_TOKENS)
TIER_TOKENS: Final = int(TIER_SHARE * POPULATION_TOKENS)
ROOMY_TOKENS: Final = 2 * POPULATION_TOKENS  # what calls add to their prefixes has room, too
EMPTY_WITHIN: Final = 30.0
SHUFFLE_SEED: Final = 1


def pool_tokens(place: Place) -> int:
    """Return for how many tokens the device has room there."""
    return ROOMY_TOKENS if place == "roomy" else POOL_TOKENS


@dataclass(frozen=True, slots=True)
class Performance:
    """A played variant; of one with a daemon also its report when the first steps were over, its report at the end, and
    the CPU seconds that it took; beside unannounced requests also these, from the first step on."""

    run: Run
    first: dict[str, Any] | None = None
    report: dict[str, Any] | None = None
    cpu_seconds: float | None = None
    traffic: Traffic | None = None

    @property
    def prefetched(self) -> int:
        """Tokens that the engine computed for prefetches after the first steps."""
        if self.report is None:
            return 0
        before = 0 if self.first is None else self.first["prefetched_tokens"]
        return int(self.report["prefetched_tokens"] - before)


class Stage:
    """The started engines of one kind: `urls` are theirs, and `folder` has a folder for each. Each step takes the
    simulation `pace` seconds."""

    def __init__(self, kind: EngineKind, folder: Path, urls: Mapping[Place, str], pace: float = 0.0) -> None:
        self._kind = kind
        self._folder = folder
        self._urls = urls
        self._pace = pace

    async def perform(
        self,
        variant: Variant,
        workload: Workload,
        prompts: PromptBook,
        steps: int,
        warmup: int,
        arrivals: Sequence[Arrival] = (),
    ) -> Performance:
        """Play the first `steps` steps of a workload, as it is told in this variant; the first `warmup` of them are not
        counted. Meanwhile these other requests come."""
        place, url = variant.place, self._urls[variant.place]
        await _empty(self._kind, url)
        if place == "roomy":
            await fill_cache(url, prompts)
        async with background(url, arrivals) as traffic:
            played = await self._play(variant, url, workload, prompts, steps, warmup)
        return replace(played, traffic=traffic) if arrivals else played

    async def _play(
        self, variant: Variant, url: str, workload: Workload, prompts: PromptBook, steps: int, warmup: int
    ) -> Performance:
        told = variant.speech is not None
        if not (told or variant.unchanged):
            return Performance(await play(url, workload, prompts, pace=self._pace, steps=steps))
        first: list[dict[str, Any]] = []
        done = count(1)
        with self._daemon(variant, workload) as daemon, ExitStack() as stack:
            speaker = None
            if told:
                publisher = stack.enter_context(Publisher(workload.simulation, address=daemon.feed))
                speaker = Without(publisher, _unsaid(variant))
            run = await play(
                daemon.gateway if variant.unchanged else url,
                workload,
                prompts,
                pace=self._pace,
                steps=steps,
                speaker=speaker,
                on_step=lambda: first.append(daemon.report()) if next(done) == warmup else None,
                tag=by_user if variant.unchanged else by_session,
            )
            return Performance(run, first[0] if first else None, daemon.report(), daemon.cpu_seconds())

    @contextmanager
    def _daemon(self, variant: Variant, workload: Workload) -> Iterator[DaemonProcess]:
        """Run a fresh daemon. Where it is not to prefetch it drives an emulated engine, on which nobody's memory is."""
        dues, url = _dues(self._folder, variant.place), self._urls[variant.place]
        kind = self._kind.name
        with ExitStack() as stack:
            if variant.shuffled:
                agents = [f"{workload.simulation}/{agent}" for agent in workload.personas]
                told, dues = dues, f"{dues}-unshuffled"
                stack.enter_context(shuffling(dues, told, agents, SHUFFLE_SEED))
            if not variant.prefetch:
                kind, url = "vllm", stack.enter_context(EmulatorServer(EmulatorConfig(max_loras=0))).url
            folder = Path(mkdtemp(prefix="d-", dir=self._folder))
            port = free_port() if variant.unchanged else None
            daemon = DaemonProcess(folder, url, dues=dues, kind=kind, gateway_port=port)
            yield stack.enter_context(daemon)


@dataclass(frozen=True, slots=True)
class Without:
    """Says everything but events of these types."""

    speaker: Speaker
    types: tuple[type[Event], ...]

    def send(self, *events: Event) -> None:
        """Hand over the other events."""
        self.speaker.send(*(event for event in events if not isinstance(event, self.types)))


def _unsaid(variant: Variant) -> tuple[type[Event], ...]:
    """Without memory there is nothing to prefetch, until an engine's events tell of it."""
    if variant.calls_only:
        return AgentRegistered, MemoryBound
    return () if variant.prefetch else (MemoryBound,)


@contextmanager
def stage(
    kind: EngineKind, folder: Path, places: Collection[Place], *, model: str = "mid", pace: float = 0.0
) -> Iterator[Stage]:
    """Start these engines side by side; their logs and sockets lie in `folder`. A step takes a simulation `pace`
    seconds."""
    with ExitStack() as stack:
        servers = {place: stack.enter_context(kind.launched(_site(folder, place, model))) for place in places}
        for server in servers.values():
            server.wait_ready()
        yield Stage(kind, folder, {place: server.url for place, server in servers.items()}, pace)


def _site(folder: Path, place: Place, model: str) -> Site:
    own = folder / place
    own.mkdir()
    return Site(place, own, model, pool_tokens(place), TIER_TOKENS, _dues(folder, place))


def _dues(folder: Path, place: Place) -> str:
    return f"ipc://{folder / place}/dues"


async def _empty(kind: EngineKind, url: str) -> None:
    """Empty an engine's KV pool and its tier. Raises `TimeoutError` where something stays held."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as client, asyncio.timeout(EMPTY_WITHIN):
        while True:
            if await kind.emptied(client):
                return
            await asyncio.sleep(0.1)
