"""Traffic that nobody announces: requests at random moments, in blocks that can come again."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Final

import httpx

from bench.background.requests import Request, Traffic, ask, token_ids

ARRIVALS_PER_SECOND: Final = 1.0
PROMPT_TOKENS: Final = (150, 250)
SHARED_TOKENS: Final = 128
OUTPUT_TOKENS: Final = 32


@dataclass(slots=True)
class Arm(Traffic):
    """All blocks of one kind, and the seconds in which they ran."""

    seconds: float = 0.0


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
            arm.take(request)
        arm.seconds += time.monotonic() - began

    def _prompt(self, rng: random.Random) -> list[int]:
        head = rng.choice([*self._shared, [], []])
        return head + token_ids(self._contents, rng.randint(*PROMPT_TOKENS) - len(head))

    async def _ask(self, prompt: list[int]) -> Request | None:
        return await ask(self._client, prompt, OUTPUT_TOKENS)
