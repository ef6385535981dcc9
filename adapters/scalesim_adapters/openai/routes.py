"""The routes that engines serve alike: the list of models, LoRAs among them, requests for one token, and the tokens
of a prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from scalesim_adapters import lorafiles
from scalesim_adapters.base import Inventory, LoraItem, Outcome, ProtocolMismatch, Rejected
from scalesim_adapters.http import Http

ASK_SECONDS = 10.0
COMPLETIONS = "/v1/completions"
CHAT_COMPLETIONS = "/v1/chat/completions"


async def model_cards(http: Http) -> list[dict[str, Any]]:
    """Ask for all models; a card with a `parent` is a LoRA's. Raises `ProtocolMismatch` where none is listed."""
    answer = await http.json("GET", "/v1/models", deadline=ASK_SECONDS)
    cards = answer.get("data") if isinstance(answer, dict) else None
    if not cards or not all(isinstance(card, dict) and isinstance(card.get("id"), str) for card in cards):
        raise ProtocolMismatch("/v1/models lists no model")
    return list(cards)


def loras(cards: Sequence[Mapping[str, Any]]) -> Inventory:
    """Return the LoRAs among the cards, with the paths they were loaded from."""
    return Inventory({card["id"]: str(card.get("root")) for card in cards if card.get("parent") is not None})


def base_models(cards: Sequence[Mapping[str, Any]]) -> dict[str, int | None]:
    """Return the served names of the base model, each with the longest context. Raises `ProtocolMismatch`."""
    found = {card["id"]: card.get("max_model_len") for card in cards if card.get("parent") is None}
    if not found:
        raise ProtocolMismatch("/v1/models lists no base model")
    return found


def registered(item: LoraItem, inventory: Inventory) -> bool:
    """Tell whether the engine knows a LoRA. Raises `Rejected` where it knows the name from another path."""
    known = inventory.loras.get(item.name)
    if known is not None and known != str(item.path):
        raise Rejected(
            f"the engine knows a LoRA {item.name!r} from {known}: "
            f"unload it, or use that path instead of {item.path}"
        )
    return known is not None


def check_files(item: LoraItem) -> None:
    """Raise `Rejected` for a path that an engine could die of, or could not load when it has to."""
    if not item.path.is_absolute():
        raise Rejected(f"the path of LoRA {item.name!r} is not absolute: {item.path}")
    lacking = lorafiles.lacks(item.path)
    if lacking is not None:
        raise Rejected(f"LoRA {item.name!r}: {lacking} under {item.path}")


async def tokenize(
    http: Http, model: str, text: str | None, messages: Sequence[Mapping[str, Any]] | None
) -> tuple[int, ...]:
    """Return the tokens of a prompt, or of the beginning of a conversation: without a turn for the answer."""
    if (text is None) == (messages is None):
        raise ValueError("give exactly one of text and messages")
    body: dict[str, Any] = {"model": model}
    if messages is None:
        body["prompt"] = text
    else:
        body |= {"messages": list(messages), "add_generation_prompt": False}
    answer = await http.json("POST", "/tokenize", body, deadline=ASK_SECONDS)
    tokens = answer.get("tokens") if isinstance(answer, dict) else None
    if not isinstance(tokens, list) or not all(isinstance(token, int) and token >= 0 for token in tokens):
        raise ProtocolMismatch("/tokenize answered without tokens")
    return tuple(tokens)


async def one_token(http: Http, body: Mapping[str, Any], deadline: float) -> Outcome:
    """Ask for one token after the body's `prompt`, or its `messages`; the outcome tells how many tokens were cached."""
    path = CHAT_COMPLETIONS if "messages" in body else COMPLETIONS
    started = monotonic()
    answer = await http.json("POST", path, {"max_tokens": 1, "temperature": 0, **body}, deadline=deadline)
    counts = usage(answer)
    details = counts.get("prompt_tokens_details") or {}
    return Outcome(monotonic() - started, counts.get("prompt_tokens") or 0, details.get("cached_tokens") or 0)


def usage(answer: Any) -> dict[str, Any]:
    """Return the counts in an answer. Raises `ProtocolMismatch` where it has none."""
    found = answer.get("usage") if isinstance(answer, dict) else None
    if not isinstance(found, dict):
        raise ProtocolMismatch("a completion was answered without usage")
    return found
