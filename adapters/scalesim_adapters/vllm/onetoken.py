"""Requests of one token: what makes vLLM compute or touch a prefix, and bring a LoRA into a slot."""

from __future__ import annotations

from collections.abc import Sequence
from time import monotonic
from typing import Any

from scalesim_adapters.base import Outcome, ProtocolMismatch
from scalesim_adapters.http import Http

COMPLETIONS = "/v1/completions"
# Where the engine schedules by priority, smaller numbers come first and ours come after everyone's.
PRIORITY = 1_000_000
ANY_TOKEN = 1


async def one_token(http: Http, model: str, prompt: Sequence[int], deadline: float, **extra: Any) -> Outcome:
    """Ask for one token after this prompt; the outcome tells how many of its tokens were cached."""
    body = {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": 1,
        "temperature": 0,
        "priority": PRIORITY,
        **extra,
    }
    started = monotonic()
    answer = await http.json("POST", COMPLETIONS, body, deadline=deadline)
    details = usage(answer).get("prompt_tokens_details") or {}
    return Outcome(monotonic() - started, len(prompt), details.get("cached_tokens") or 0)


def usage(answer: Any) -> dict[str, Any]:
    """Return the counts in an answer. Raises `ProtocolMismatch` where it has none."""
    found = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        raise ProtocolMismatch("/v1/completions answered without usage")
    return found
