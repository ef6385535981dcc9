"""A small live simulation: agents with private prefixes that do not all fit, calling in an order it announces."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from scalesim_client import Publisher
from tests.adapters.contract import BLOCK
from tests.adapters.contract_tools import VOCABULARY

PREFIX = 20 * BLOCK
OUTPUT_TOKENS = 4
PACE_SECONDS = 0.25
RETRY_SECONDS = 0.1
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered request: how many tokens of its prompt the cache gave, and after how many failed tries."""

    agent: str
    step: int
    cached: int
    failures: int


def tokens(seed: str, count: int = PREFIX) -> list[int]:
    """Return token ids that no other seed has."""
    rng = random.Random(seed)
    return [rng.randrange(10, VOCABULARY) for _ in range(count)]


async def complete(engine: httpx.AsyncClient, session: str, prompt: list[int]) -> int:
    """Send a request as a simulation does; return how many of its tokens the engine says were cached."""
    body = {
        "model": "base",
        "prompt": prompt,
        "max_tokens": OUTPUT_TOKENS,
        "ignore_eos": True,
        "session_id": session,
    }
    answer = (await engine.post("/v1/completions", json=body)).raise_for_status().json()
    assert answer["usage"]["completion_tokens"] == OUTPUT_TOKENS
    return int(answer["usage"]["prompt_tokens_details"]["cached_tokens"])


class SmallVillage:
    """`agents` agents of which about two call in a step. A request that fails is sent again until it is
    answered."""

    def __init__(self, engine_url: str, publisher: Publisher, simulation: str, agents: int = 12) -> None:
        self.answers: list[Answer] = []
        self.failures = 0
        self.now = 0
        self.prefixes = {f"a{number}": tokens(f"{simulation}/a{number}") for number in range(agents)}
        self._simulation = simulation
        self._publisher = publisher
        self._rng = random.Random(simulation)
        self._due = {agent: 1 + number // 2 for number, agent in enumerate(self.prefixes)}
        self._engine = httpx.AsyncClient(base_url=engine_url, timeout=60)
        self._life: asyncio.Task[None] | None = None
        self._stopping = False

    @asynccontextmanager
    async def living(self) -> AsyncIterator[None]:
        """Live beside the block; what is then under way is waited for."""
        self._life = asyncio.create_task(self._live())
        try:
            yield
        finally:
            self._stopping = True
            await self._life
            await self._engine.aclose()

    async def lives(self, steps: int = 0, seconds: float = 0.0) -> None:
        """Wait until it has gone on for that many steps and seconds."""
        until_step, until = self.now + steps, time.monotonic() + seconds
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self.now < until_step or time.monotonic() < until:
            assert self._life is not None and not self._life.done(), "the simulation has ended"
            assert time.monotonic() < deadline, f"the simulation stands still at step {self.now}"
            await asyncio.sleep(0.01)

    async def _live(self) -> None:
        for agent, ids in self.prefixes.items():
            self._publisher.bind(agent, token_ids=ids, model="base")
            self._publisher.activity(agent, until=self._due[agent])
        while not self._stopping:
            self._publisher.step(self.now)
            calling = [agent for agent, due in self._due.items() if due <= self.now]
            await asyncio.gather(*(self._call(agent) for agent in calling))
            await asyncio.sleep(PACE_SECONDS)
            self.now += 1

    async def _call(self, agent: str) -> None:
        prompt = [*self.prefixes[agent], *tokens(f"{agent} {self.now}", BLOCK)]
        failures, deadline = 0, time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                with self._publisher.invocation(agent):
                    cached = await complete(self._engine, f"{self._simulation}/{agent}", prompt)
                break
            except httpx.HTTPError:
                self.failures, failures = self.failures + 1, failures + 1
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
        self.answers.append(Answer(agent, self.now, cached, failures))
        self._due[agent] = self.now + self._rng.randint(4, 8)
        self._publisher.activity(agent, until=self._due[agent])
