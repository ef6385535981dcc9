"""Three simulations, each of which speaks to one daemon, lets none rest, and calls the engines itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from itertools import count
from typing import Any

import httpx

from bench.fleet.engine import BLOCK
from scalesim_client import Publisher
from scalesim_client.tags import extra_body, extra_headers

AGENTS = 10
PREFIX = 8 * BLOCK
STEP_SECONDS = 0.25
# Between calls an engine is idle, which is when daemons act.
CALL_EVERY = 4
CALL_SECONDS = 30.0
SNAPSHOT_SECONDS = 3.0
FAR = 100_000.0


class Village:
    """One simulation: at each step one of its agents is bound to another prompt, and is due before all others; one that
    is never due calls an engine."""

    def __init__(self, name: str, feed: str, engines: Mapping[str, str], client: httpx.AsyncClient) -> None:
        self.name = name
        self.step = 0
        self.dues: dict[str, float] = {}
        """Of each agent the due that it was given last."""
        self.calls = 0
        self.failed: list[str] = []
        self._engines = engines
        self._client = client
        self._calling: set[asyncio.Task[None]] = set()
        self._publisher = Publisher(name, address=feed, snapshot_every=SNAPSHOT_SECONDS)
        self._prompts = self._fresh()

    async def play(self, over: asyncio.Event) -> None:
        """Play until it is over, and wait for the last answers."""
        while not over.is_set():
            self._next()
            await asyncio.sleep(STEP_SECONDS)
        await asyncio.gather(*self._calling)

    async def close(self) -> None:
        """Say goodbye."""
        await asyncio.to_thread(self._publisher.close)

    def differs(self, agents: Mapping[str, Any]) -> Iterator[str]:
        """Yield what a daemon, whose `agents` are by key, has otherwise than they were told."""
        for key, due in self.dues.items():
            known = agents.get(key)
            distance = None if known is None else known["distance"]
            if distance is None or abs(distance - (due - self.step)) > 1e-6:
                yield f"{key} is due in {due - self.step:g} steps, known as {distance}"

    def _fresh(self) -> Iterator[list[int]]:
        # Names are of ASCII letters: each simulation has its own share of the tokens.
        first = sum(map(ord, self.name))
        for number in count():
            yield [3 + (first * 7919 + number * PREFIX + position) % 30_000 for position in range(PREFIX)]

    def _next(self) -> None:
        self.step += 1
        self._publisher.step(self.step)
        agent = f"agent{self.step % AGENTS}"
        self._publisher.bind(agent, token_ids=next(self._prompts))
        due = FAR - self.step
        self.dues[f"{self.name}/{agent}"] = due
        self._publisher.activity(agent, until=due)
        if self.step % CALL_EVERY == 0:
            call = asyncio.create_task(self._call("caller", self.step // CALL_EVERY))
            self._calling.add(call)
            call.add_done_callback(self._calling.discard)

    async def _call(self, agent: str, number: int) -> None:
        """Call one engine after the other, as they would be called without any daemon."""
        self.calls += 1
        engine = list(self._engines)[number % len(self._engines)]
        prompt = [*range(3, 3 + 2 * BLOCK), 3 + number]
        body = {"model": "base", "prompt": prompt, "max_tokens": 2, **extra_body(self.name, agent)}
        with self._publisher.invocation(agent):
            try:
                answer = await self._client.post(
                    f"{self._engines[engine]}/v1/completions",
                    json=body,
                    headers=extra_headers(self.name, agent),
                    timeout=CALL_SECONDS,
                )
                made = answer.json()["usage"]["completion_tokens"] if answer.is_success else 0
                problem = None if made else f"{answer.status_code} {answer.text[:160]}"
            except (httpx.HTTPError, ValueError, LookupError, TypeError) as error:
                problem = f"{type(error).__name__}: {error}"
        if problem is not None:
            self.failed.append(f"{self.name}/{agent} on {engine}, call {number}: {problem}")
