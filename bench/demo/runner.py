"""Play a workload on an engine: every call of a step at once, and what each answer cost."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from random import Random
from statistics import median
from typing import Any, Protocol

import httpx

from bench.demo.prompts import FRESH_TOKENS, MODEL, OUTPUT_TOKENS, PREFIX_TOKENS, PromptBook
from bench.workloads.base import Call, Workload
from scalesim_client.events import (
    AgentRegistered,
    Event,
    InvocationFinished,
    InvocationStarted,
    MemoryBound,
    StepAdvanced,
)


class Speaker(Protocol):
    """Where a simulation's events go."""

    def send(self, *events: Event) -> None:
        """Hand over events without waiting."""
        ...


class Silence:
    """The speaker of a simulation that runs alone: says nothing."""

    def send(self, *events: Event) -> None:
        """Drop the events."""


Tag = Callable[[str, str], dict[str, str]]
"""What a request's body says of a simulation and its agent."""


def by_session(simulation: str, agent: str) -> dict[str, str]:
    """Tag a request as the client's tags do."""
    return {"session_id": f"{simulation}/{agent}"}


def by_user(simulation: str, agent: str) -> dict[str, str]:
    """Name the agent as code does that knows nothing of the sidecar."""
    return {"user": agent}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered call of step `step`, counted from 1: `ttft` in seconds, and how many prompt tokens the cache gave.

    `error` is set where the request failed, and then the other figures mean nothing.
    """

    call: Call
    step: int
    ttft: float = 0.0
    prompt_tokens: int = 0
    cached: int = 0
    output: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """A played workload: the seconds at which each step was over, counted from the start, and all answers."""

    pace: float
    ends: tuple[float, ...]
    answers: tuple[Answer, ...]

    @property
    def makespan(self) -> float:
        """Seconds from the start of the first step to the last answer."""
        return self.ends[-1]


async def play(
    engine: str,
    workload: Workload,
    prompts: PromptBook,
    *,
    pace: float,
    steps: int | None = None,
    speaker: Speaker | None = None,
    on_step: Callable[[], None] = lambda: None,
    tag: Tag = by_session,
) -> Run:
    """Run the first `steps` steps (default: all) of `workload` live on the engine with base URL `engine`.

    Each step takes the simulation `pace` seconds, then all its calls are sent at once and awaited. `on_step`
    is called after each step.
    """
    speaker = speaker or Silence()
    ends: list[float] = []
    answers: list[Answer] = []
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=engine, timeout=300, limits=limits) as client:
        asker = _Asker(client, workload.simulation, prompts, speaker, tag)
        speaker.send(*(AgentRegistered(agent=agent) for agent in workload.personas))
        for agent, ids in prompts.prefixes.items():
            speaker.send(MemoryBound(agent=agent, token_ids=ids, model=MODEL))
        speaker.send(StepAdvanced(now=0), *workload.opening)
        started = time.perf_counter()
        for number, step in enumerate(islice(workload.steps(), steps), start=1):
            await asyncio.sleep(pace)
            speaker.send(StepAdvanced(now=step.now), *step.before)
            asked = (asker.ask(call, number) for call in step.calls)
            answers += await asyncio.gather(*asked)
            speaker.send(*step.after)
            ends.append(time.perf_counter() - started)
            on_step()
    return Run(pace, tuple(ends), tuple(answers))


async def time_prefill(engine: str, prompts: PromptBook) -> float:
    """Return the seconds that one prompt takes to its first token with nothing cached, on an idle engine.

    Measured with prompts that no agent has, so that the cache gains nothing; the first two only warm up.
    """
    unlike = [ids[::-1] + ids[:FRESH_TOKENS] for ids in list(prompts.prefixes.values())[:5]]
    async with httpx.AsyncClient(base_url=engine, timeout=300) as client:
        times = [
            (await _stream(client, by_session("preparation", "prefill"), prompt))["ttft"] for prompt in unlike
        ]
    return float(median(times[2:]))


async def empty_cache(engine: str, pool_tokens: int) -> None:
    """Push everything out of an engine's KV pool, by prompts as large as the pool that nobody uses again."""
    count = pool_tokens // PREFIX_TOKENS + 1
    rng = Random()
    async with httpx.AsyncClient(base_url=engine, timeout=300) as client:
        for _ in range(count):
            await _stream(
                client,
                by_session("preparation", "junk"),
                [rng.randrange(100, 3000) for _ in range(PREFIX_TOKENS)],
            )


async def fill_cache(engine: str, prompts: PromptBook) -> None:
    """Have every agent's prefix computed once, one after the other."""
    async with httpx.AsyncClient(base_url=engine, timeout=300) as client:
        for prefix in prompts.prefixes.values():
            await _stream(client, by_session("preparation", "prefix"), prefix)


@dataclass(frozen=True, slots=True)
class _Asker:
    client: httpx.AsyncClient
    simulation: str
    prompts: PromptBook
    speaker: Speaker
    tag: Tag

    async def ask(self, call: Call, step: int) -> Answer:
        self.speaker.send(InvocationStarted(agent=call.agent))
        try:
            tags = self.tag(self.simulation, call.agent)
            figures = await _stream(self.client, tags, self.prompts.prompt(call))
        except (httpx.HTTPError, json.JSONDecodeError, KeyError) as error:
            return Answer(call, step, error=f"{type(error).__name__}: {error}")
        finally:
            self.speaker.send(InvocationFinished(agent=call.agent))
        return Answer(call, step, **figures)


async def _stream(client: httpx.AsyncClient, tags: dict[str, str], prompt: list[int]) -> dict[str, Any]:
    body = {
        "model": MODEL,
        "prompt": prompt,
        "max_tokens": OUTPUT_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        **tags,
    }
    started = time.perf_counter()
    ttft: float | None = None
    text = ""
    usage: dict[str, Any] = {}
    async with client.stream("POST", "/v1/completions", json=body) as answer:
        if answer.is_error:
            await answer.aread()
            raise httpx.HTTPStatusError(answer.text[:200], request=answer.request, response=answer)
        async for line in answer.aiter_lines():
            if not line.startswith("data: {"):
                continue
            chunk = json.loads(line.removeprefix("data: "))
            if chunk["choices"] and ttft is None:
                ttft = time.perf_counter() - started
            text += "".join(choice["text"] for choice in chunk["choices"])
            usage = chunk.get("usage") or usage
    if ttft is None or usage["completion_tokens"] != OUTPUT_TOKENS:
        raise httpx.RemoteProtocolError(f"the answer ended early: {usage}")
    return {
        "ttft": ttft,
        "prompt_tokens": usage["prompt_tokens"],
        "cached": (usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0,
        "output": hashlib.md5(text.encode(), usedforsecurity=False).hexdigest(),
    }
