"""Requests of one token: what makes vLLM compute or touch a prefix, and bring a LoRA into a slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scalesim_adapters.base import Outcome
from scalesim_adapters.http import Http
from scalesim_adapters.openai import routes as openai

# Where the engine schedules by priority, smaller numbers come first and ours come after everyone's.
PRIORITY = 1_000_000
ANY_TOKEN = 1


async def one_token(http: Http, model: str, prompt: Sequence[int], deadline: float, **extra: Any) -> Outcome:
    """Ask for one token after this prompt, when nobody else waits; the outcome tells how many tokens were cached."""
    body = {"model": model, "prompt": list(prompt), "priority": PRIORITY, **extra}
    return await openai.one_token(http, body, deadline)
