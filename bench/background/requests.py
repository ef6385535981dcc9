"""Requests of nobody that a simulation knows, and when each of their tokens came."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

import httpx


@dataclass(frozen=True, slots=True)
class Request:
    """One answered request: wall times of its sending and of each token, and how many prompt tokens the cache gave."""

    sent: float
    tokens: tuple[float, ...]
    prompt_tokens: int
    cached: int

    @property
    def ttft(self) -> float:
        """Seconds to the first token."""
        return self.tokens[0] - self.sent

    @property
    def gaps(self) -> list[float]:
        """Seconds between tokens."""
        return [later - earlier for earlier, later in zip(self.tokens, self.tokens[1:], strict=False)]


@dataclass(slots=True)
class Traffic:
    """Requests that were answered, and how many failed. The figures need one that was answered."""

    requests: list[Request] = field(default_factory=list)
    failed: int = 0

    def take(self, request: Request | None) -> None:
        """Count a request; None is one that failed."""
        if request is None:
            self.failed += 1
        else:
            self.requests.append(request)

    @property
    def ttft_mean(self) -> float:
        """Mean time to first token."""
        return fmean(request.ttft for request in self.requests)

    @property
    def ttft_p95(self) -> float:
        """95th percentile of the time to first token."""
        return percentile([request.ttft for request in self.requests], 0.95)

    @property
    def gap_p95(self) -> float:
        """95th percentile of the time between tokens."""
        return percentile([gap for request in self.requests for gap in request.gaps], 0.95)

    @property
    def cached_share(self) -> float:
        """Share of the prompt tokens that the cache gave."""
        return sum(r.cached for r in self.requests) / sum(r.prompt_tokens for r in self.requests)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that a `share` of the values doesn't exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


async def ask(client: httpx.AsyncClient, prompt: Sequence[int], output_tokens: int) -> Request | None:
    """Send a prompt without a session; return None where it fails."""
    body = {
        "model": "base",
        "prompt": list(prompt),
        "max_tokens": output_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    sent, tokens, cached = time.time(), [], 0
    try:
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                chunk = json.loads(line.removeprefix("data: "))
                if chunk["choices"]:
                    tokens.append(time.time())
                details = (chunk.get("usage") or {}).get("prompt_tokens_details") or {}
                cached = details.get("cached_tokens") or cached
    except (httpx.HTTPError, json.JSONDecodeError, KeyError):
        return None
    return Request(sent, tuple(tokens), len(prompt), cached) if tokens else None


def token_ids(rng: random.Random, count: int) -> list[int]:
    """Return so many random tokens."""
    return [rng.randrange(100, 3000) for _ in range(count)]
