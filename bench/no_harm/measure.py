"""Blocks of background traffic with the daemon and without it, by turns, and what the daemon did meanwhile."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx

from bench.background.requests import token_ids
from bench.no_harm.background import Arm, Background
from bench.rig.daemon import DaemonFailed, DaemonProcess
from scalesim_client import Publisher

ENGINE: Final = "vLLM 0.32.0 (CPU)"
AGENTS: Final = 14
PREFIX_TOKENS: Final = 1024
WARMING: Final = 4
WARM_WITHIN: Final = 30.0
TOLD_WITHIN: Final = 0.1  # seconds until an engine's counts tell of a request


@dataclass(frozen=True, slots=True)
class Work:
    """One speculative request of the daemon, from wall time `start` to `end`."""

    start: float
    end: float


@dataclass(slots=True)
class Outcome:
    """Both arms, and what the daemon did in its own."""

    alone: Arm = field(default_factory=Arm)
    beside: Arm = field(default_factory=Arm)
    work: list[Work] = field(default_factory=list)
    prefetched_tokens: int = 0

    @property
    def speculative_share(self) -> float:
        """Share of the daemon's arm in which speculative work ran."""
        return sum(work.end - work.start for work in self.work) / self.beside.seconds

    @property
    def starts_beside_requests(self) -> int:
        """How many speculative requests were sent beside a background request of which the engine told."""
        return sum(
            any(
                request.tokens[0] + TOLD_WITHIN < work.start < request.tokens[-1]
                for request in self.beside.requests
            )
            for work in self.work
        )

    @property
    def met(self) -> float:
        """Share of the background requests that ran at the same time as speculative work, if only for a
        moment."""
        met = sum(
            any(work.start < request.tokens[-1] and request.sent < work.end for work in self.work)
            for request in self.beside.requests
        )
        return met / len(self.beside.requests)


async def measure(engine_url: str, daemon: DaemonProcess, pairs: int, seconds: float, seed: int) -> Outcome:
    """Run `pairs` times a block of `seconds` with the engine alone, and one with the daemon."""
    outcome = Outcome()
    async with busy(engine_url, daemon, seed) as background:
        for pair in range(pairs):
            await background.warm(WARMING)
            await background.block(f"{seed} {pair}", seconds, outcome.alone)
            await run_beside(background, daemon, f"{seed} {pair}", seconds, outcome)
    return outcome


@asynccontextmanager
async def busy(engine_url: str, daemon: DaemonProcess, seed: int) -> AsyncIterator[Background]:
    """Keep a village moving that the daemon hears of when it runs; yield the traffic that it doesn't hear of."""
    limits = httpx.Limits(max_connections=None)
    with Publisher("no-harm", address=daemon.feed) as publisher:
        village = asyncio.create_task(_village(publisher))
        async with httpx.AsyncClient(base_url=engine_url, timeout=60, limits=limits) as client:
            yield Background(client, seed)
        village.cancel()
        await asyncio.gather(village, return_exceptions=True)


async def run_beside(
    background: Background, daemon: DaemonProcess, block: str, seconds: float, outcome: Outcome
) -> None:
    """Run a block of `seconds` with a fresh daemon, and add to the outcome what both did."""
    await asyncio.to_thread(daemon.start)
    try:
        await _until_shared(background, daemon)
        began = time.time()
        await background.block(block, seconds, outcome.beside)
        await _account(daemon, outcome, began)
    finally:
        await asyncio.to_thread(daemon.stop)


async def _village(publisher: Publisher) -> None:
    """Move everybody's due by a step a second: another agent is the next, and not yet there."""
    rng = random.Random("village")
    for number in range(AGENTS):
        publisher.bind(f"a{number}", token_ids=token_ids(rng, PREFIX_TOKENS), model="base")
    now = 0
    while True:
        publisher.step(now)
        for number in range(AGENTS):
            publisher.activity(f"a{number}", for_=1 + (number - now) % AGENTS)
        await asyncio.sleep(1)
        now += 1


async def _until_shared(background: Background, daemon: DaemonProcess) -> None:
    """Send requests until a fresh daemon has noticed that it isn't alone."""
    deadline = time.monotonic() + WARM_WITHIN
    async with httpx.AsyncClient(base_url=daemon.api) as api:
        while True:
            await background.warm(WARMING)
            (state,) = (await api.get("/v1/engines")).raise_for_status().json()["engines"]
            if state["shared"]:
                return
            if time.monotonic() > deadline:
                raise DaemonFailed("the daemon doesn't notice traffic that nobody announced")


async def _account(daemon: DaemonProcess, outcome: Outcome, began: float) -> None:
    async with httpx.AsyncClient(base_url=daemon.api) as api:
        for number in range(AGENTS):
            agent = (await api.get(f"/v1/agents/no-harm/a{number}")).raise_for_status().json()
            for did in agent["decisions"]:
                if did["step"]["key"] == agent["key"] and did["at"] > began:
                    outcome.work.append(Work(did["at"] - did["seconds"], did["at"]))
                    outcome.prefetched_tokens += did["computed"]


def summary(outcome: Outcome) -> dict[str, Any]:
    """Return the figures of a measurement, for programs."""
    alone, beside = outcome.alone, outcome.beside
    return {
        "ttft_p95_ratio": round(beside.ttft_p95 / alone.ttft_p95, 3),
        "itl_p95_ratio": round(beside.gap_p95 / alone.gap_p95, 3),
        "requests_alone": len(alone.requests),
        "requests_beside": len(beside.requests),
        "failed_requests": alone.failed + beside.failed,
        "prefetched_tokens": outcome.prefetched_tokens,
        "prefetch_requests": len(outcome.work),
        "speculative_share": round(outcome.speculative_share, 4),
        "starts_beside_requests": outcome.starts_beside_requests,
        "requests_that_met_prefetches": round(outcome.met, 4),
        "engine": ENGINE,
    }
