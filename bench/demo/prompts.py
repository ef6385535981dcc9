"""Prompts as token ids: an agent's private prefix and what it sees now, by the engine's own tokenizer."""

from __future__ import annotations

from random import Random
from typing import Final

import httpx

from bench.background.requests import token_ids
from bench.workloads.base import Call, Workload

PREFIX_TOKENS: Final = 1024
FRESH_TOKENS: Final = 64
OUTPUT_TOKENS: Final = 16
MODEL: Final = "base"


class PromptBook:
    """Every prompt of a workload. `prefixes` holds exactly 1,024 token ids per agent."""

    def __init__(self, prefixes: dict[str, list[int]], fresh: dict[str, list[int]]) -> None:
        self.prefixes = prefixes
        self._fresh = fresh

    def prompt(self, call: Call) -> list[int]:
        """Return the token ids of a call: its agent's prefix, then 64 of its memory."""
        return self.prefixes[call.agent] + self._fresh[call.memory]


async def write_prompts(engine: str, workload: Workload) -> PromptBook:
    """Tokenize all of a workload's texts at the engine with base URL `engine`.

    Raises `ValueError` where a text is too short for its share of the prompt.
    """
    async with httpx.AsyncClient(base_url=engine, timeout=60) as client:
        prefixes = {a: await _tokens(client, text, PREFIX_TOKENS) for a, text in workload.personas.items()}
        memories = {call.memory for step in workload.steps() for call in step.calls}
        fresh = {text: await _tokens(client, text, FRESH_TOKENS) for text in sorted(memories)}
    return PromptBook(prefixes, fresh)


def draw_prompts(workload: Workload) -> PromptBook:
    """Draw all of a workload's prompts at random, the same each time; equal texts give equal tokens."""
    prefixes = {agent: draw_tokens(text, PREFIX_TOKENS) for agent, text in workload.personas.items()}
    memories = {call.memory for step in workload.steps() for call in step.calls}
    return PromptBook(prefixes, {text: draw_tokens(text, FRESH_TOKENS) for text in memories})


def draw_tokens(seed: str, count: int) -> list[int]:
    """Draw token ids that all of the rig's models know."""
    return token_ids(Random(seed), count)


async def _tokens(client: httpx.AsyncClient, text: str, count: int) -> list[int]:
    body = {"model": MODEL, "prompt": text, "add_special_tokens": False}
    answer = (await client.post("/tokenize", json=body)).raise_for_status()
    ids: list[int] = answer.json()["tokens"][:count]
    if len(ids) < count:
        raise ValueError(f"{len(ids)} tokens where {count} are needed: {text[:60]!r}")
    return ids
