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
from bench.demo.runner import Run, Speaker, fill_cache, play
from bench.engine.classes import AGENTS
from bench.engine.kind import EngineKind, Site
from bench.engine.shuffle import shuffling
from bench.engine.variants import Place, Variant
from bench.rig.daemon import DaemonProcess
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
    """The started engines of one kind: `urls` are theirs, and `folder` has a folder for each."""

    def __init__(self, kind: EngineKind, folder: Path, urls: Mapping[Place, str]) -> None:
        self._kind = kind
        self._folder = folder
        self._urls = urls

    async def perform(
        self,
        variant: Variant,
        workload: Workload,
        prompts: PromptBook,
        steps: int,
        warmup: int,
        arrivals: Sequence[Arrival] = (),
    ) -> Performance:
        """Play the first `steps` steps of a workload, as it is told in this variant, without pause; the first `warmup`
        of them are not counted. Meanwhile these other requests come."""
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
        if variant.speech is None:
            return Performance(await play(url, workload, prompts, pace=0.0, steps=steps))
        first: list[dict[str, Any]] = []
        done = count(1)
        with (
            self._daemon(variant, workload) as daemon,
            Publisher(workload.simulation, address=daemon.feed) as publisher,
        ):
            run = await play(
                url,
                workload,
                prompts,
                pace=0.0,
                steps=steps,
                speaker=Without(publisher, _unsaid(variant)),
                on_step=lambda: first.append(daemon.report()) if next(done) == warmup else None,
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
            yield stack.enter_context(DaemonProcess(folder, url, dues=dues, kind=kind))


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
def stage(kind: EngineKind, folder: Path, places: Collection[Place]) -> Iterator[Stage]:
    """Start these engines side by side; their logs and sockets lie in `folder`."""
    with ExitStack() as stack:
        servers = {place: stack.enter_context(kind.launched(_site(folder, place))) for place in places}
        for server in servers.values():
            server.wait_ready()
        yield Stage(kind, folder, {place: server.url for place, server in servers.items()})


def _site(folder: Path, place: Place) -> Site:
    own = folder / place
    own.mkdir()
    return Site(place, own, pool_tokens(place), TIER_TOKENS, _dues(folder, place))


def _dues(folder: Path, place: Place) -> str:
    return f"ipc://{folder / place}/dues"


async def _empty(kind: EngineKind, url: str) -> None:
    """Empty an engine's KV pool and its tier. Raises `TimeoutError` where something stays held."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as client, asyncio.timeout(EMPTY_WITHIN):
        while True:
            if await kind.emptied(client):
                return
            await asyncio.sleep(0.1)
