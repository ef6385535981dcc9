"""Traffic that nobody announces: requests at random moments, and when each of their tokens came."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx

ARRIVALS_PER_SECOND: Final = 1.0
PROMPT_TOKENS: Final = (150, 250)
SHARED_TOKENS: Final = 128
OUTPUT_TOKENS: Final = 32


@dataclass(frozen=True, slots=True)
class Request:
    """One answered background request: wall times of its sending and of each token."""

    sent: float
    tokens: tuple[float, ...]

    @property
    def ttft(self) -> float:
        """Seconds to the first token."""
        return self.tokens[0] - self.sent

    @property
    def gaps(self) -> list[float]:
        """Seconds between tokens."""
        return [later - earlier for earlier, later in zip(self.tokens, self.tokens[1:], strict=False)]


@dataclass(slots=True)
class Arm:
    """All blocks of one kind: requests, how many failed, and the seconds in which they ran."""

    requests: list[Request] = field(default_factory=list)
    failed: int = 0
    seconds: float = 0.0

    @property
    def ttft_p95(self) -> float:
        """95th percentile of the time to first token."""
        return percentile([request.ttft for request in self.requests], 0.95)

    @property
    def gap_p95(self) -> float:
        """95th percentile of the time between tokens."""
        return percentile([gap for request in self.requests for gap in request.gaps], 0.95)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that a `share` of the values doesn't exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


class Background:
    """Traffic without a session: prompts of which about half begin as others did."""

    def __init__(self, client: httpx.AsyncClient, seed: int) -> None:
        self._client = client
        self._contents = random.Random(f"contents {seed}")
        self._shared = [token_ids(self._contents, SHARED_TOKENS) for _ in range(2)]

    async def warm(self, count: int) -> None:
        """Send some requests one after the other; nobody measures them."""
        for number in range(count):
            await self._ask(
                self._shared[number % len(self._shared)] + token_ids(self._contents, SHARED_TOKENS)
            )

    async def block(self, seed: str, seconds: float, arm: Arm) -> None:
        """Let requests arrive for so long, and wait for the last one; a seed gives the same arrivals and lengths
        again."""
        rng, asked = random.Random(seed), []
        began = time.monotonic()
        arrives = rng.expovariate(ARRIVALS_PER_SECOND)
        while arrives < seconds:
            prompt = self._prompt(rng)
            await asyncio.sleep(began + arrives - time.monotonic())
            asked.append(asyncio.create_task(self._ask(prompt)))
            arrives += rng.expovariate(ARRIVALS_PER_SECOND)
        await asyncio.sleep(began + seconds - time.monotonic())
        for request in await asyncio.gather(*asked):
            if request is None:
                arm.failed += 1
            else:
                arm.requests.append(request)
        arm.seconds += time.monotonic() - began

    def _prompt(self, rng: random.Random) -> list[int]:
        head = rng.choice([*self._shared, [], []])
        return head + token_ids(self._contents, rng.randint(*PROMPT_TOKENS) - len(head))

    async def _ask(self, prompt: list[int]) -> Request | None:
        body = {
            "model": "base",
            "prompt": prompt,
            "max_tokens": OUTPUT_TOKENS,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
        sent, tokens = time.time(), []
        try:
            async with self._client.stream("POST", "/v1/completions", json=body) as answer:
                answer.raise_for_status()
                async for line in answer.aiter_lines():
                    if line.startswith("data: {"):
                        tokens.append(time.time())
        except httpx.HTTPError:
            return None
        return Request(sent, tuple(tokens)) if tokens else None


def token_ids(rng: random.Random, count: int) -> list[int]:
    """Return so many random tokens."""
    return [rng.randrange(100, 3000) for _ in range(count)]
