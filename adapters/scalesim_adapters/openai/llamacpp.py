"""What llama.cpp's server tells and takes beyond OpenAI's routes: its slots, each with one prompt's KV.

A request goes to the idle slot whose prompt has most in common with its own, where that is more than a tenth of it
(`--slot-prompt-similarity`), else to the one used longest ago, and what was there is gone (`get_available_slot` of
tools/server/server-context.cpp, b10434). `id_slot` in a request names the slot instead. A prompt that is too long is
refused, but the slot that was chosen for it is emptied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from scalesim_adapters import metrics
from scalesim_adapters.base import (
    NotFound,
    Pressure,
    ProtocolMismatch,
    Rejected,
    Unsupported,
)
from scalesim_adapters.http import Http
from scalesim_adapters.openai.routes import ASK_SECONDS

DEFERRED = "llamacpp:requests_deferred"
_WANTED = metrics.parser((DEFERRED,))


class _Generation(msgspec.Struct):
    n_ctx: int


class Props(msgspec.Struct):
    """What `/props` says. The media marker is drawn anew at each start of the server."""

    total_slots: int
    default_generation_settings: _Generation
    build_info: str = "unknown"
    media_marker: str | None = None
    endpoint_slots: bool = False

    @property
    def slot_tokens(self) -> int:
        """How many tokens of a prompt and its answer a slot has room for."""
        return self.default_generation_settings.n_ctx


class Slot(msgspec.Struct):
    """One of the server's slots. `id_task` is that of its latest request, -1 before the first; `n_prompt_tokens` is how
    much it holds. Slots that share their room (`--kv-unified`) are emptied for others, the idle ones first."""

    id: int
    is_processing: bool
    id_task: int = -1
    n_prompt_tokens: int = 1

    @property
    def request(self) -> int:
        """The request whose prompt it holds, -1 where it holds none."""
        return self.id_task if self.n_prompt_tokens else -1


async def props(http: Http) -> Props | None:
    """Ask for the server's properties; None where it is no llama.cpp."""
    try:
        answer = await http.json("GET", "/props", deadline=ASK_SECONDS)
        return msgspec.convert(answer, Props)
    except (Unsupported, NotFound, Rejected, ProtocolMismatch, msgspec.ValidationError):
        return None


async def slots(http: Http) -> list[Slot]:
    """Ask for all slots, in the order of their ids."""
    answer = await http.json("GET", "/slots", deadline=ASK_SECONDS)
    try:
        return sorted(msgspec.convert(answer, list[Slot]), key=lambda slot: slot.id)
    except msgspec.ValidationError as error:
        raise ProtocolMismatch(f"/slots answered {answer!r}") from error


async def pressure(http: Http) -> Pressure:
    """Ask how many slots work, and, where metrics are on, how many requests wait for one."""
    running = sum(slot.is_processing for slot in await slots(http))
    try:
        samples = metrics.parse(await http.text("/metrics", deadline=ASK_SECONDS), _WANTED)
    except (Unsupported, NotFound):
        samples = {}
    return Pressure(running, metrics.total(samples, DEFERRED), None)


async def tokenize(
    http: Http, text: str | None, messages: Sequence[Mapping[str, Any]] | None
) -> tuple[int, ...]:
    """Return the tokens of a prompt, or of the beginning of a conversation: without a turn for the answer."""
    if (text is None) == (messages is None):
        raise ValueError("give exactly one of text and messages")
    if messages is not None:
        body = {"messages": list(messages), "add_generation_prompt": False}
        answer = await http.json("POST", "/apply-template", body, deadline=ASK_SECONDS)
        text = answer.get("prompt") if isinstance(answer, dict) else None
    # As the server's completions do it: with the special tokens that begin a prompt, and those written in it.
    body = {"content": text, "add_special": True, "parse_special": True}
    answer = await http.json("POST", "/tokenize", body, deadline=ASK_SECONDS)
    tokens = answer.get("tokens") if isinstance(answer, dict) else None
    if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
        raise ProtocolMismatch("/tokenize answered without tokens")
    return tuple(tokens)
