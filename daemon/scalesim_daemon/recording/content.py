"""Prompts that a recording leaves out: their lengths, and stand-ins of the same lengths. Pure."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from scalesim_client.events import EVENT_TYPES, MAX_MESSAGE_BYTES, MemoryBound, StateSnapshot

WITHHELD = "withheld"
CONTENT = ("text", "token_ids", "messages", "prompt", "input")
SALT = "cache_salt"
# Of a request's body, what tells how it was served, and nothing of what was said.
SETTINGS = (
    *("model", "stream", "max_tokens", "max_completion_tokens", "min_tokens", "ignore_eos", "n", "best_of"),
    *("temperature", "top_p", "top_k", "seed", "priority", "presence_penalty", "frequency_penalty"),
)
LONGEST_SETTING = 256
FIELDS = {
    name: frozenset(field.name.rstrip("_") for field in fields(cls)) | {"type", "now"}
    for name, cls in EVENT_TYPES.items()
}
FILLER = "and so on, as long as what was said here, "
TOKENS = range(3, 128)
"""Token ids that every vocabulary has, of one byte each: no message grows."""


def withhold_event(event: Any) -> Any:
    """Return an event with the lengths of what it says of prompts. Of a type that isn't known only the type is left,
    and of others the fields of the contract: the daemon reads no more."""
    if not isinstance(event, dict):
        return None
    name = event.get("type")
    known = FIELDS.get(name) if isinstance(name, str) else None
    if known is None:
        return {"type": name[:64] if isinstance(name, str) else None}
    kept = {key: value for key, value in event.items() if key in known}
    if name == StateSnapshot.type:
        kept["events"] = [withhold_event(inner) for inner in _inside(event)]
    return _withhold(kept) if name == MemoryBound.type else kept


def withhold_body(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a request's body with the lengths of its prompts, and what tells how it was served."""
    kept = {
        key: value for key, value in body.items() if key in CONTENT or (key in SETTINGS and _is_plain(value))
    }
    return _withhold(kept)


def restore(said: Any, whose: str) -> Any:
    """Return an event or a body with made-up prompts of the recorded lengths, the same ones for the same agent. Raises
    `ValueError` where the lengths can't be."""
    if not isinstance(said, dict):
        return said
    restored = {key: value for key, value in said.items() if key != WITHHELD}
    if said.get("type") == StateSnapshot.type:
        restored["events"] = [restore(inner, whose) for inner in _inside(said)]
    sizes = said.get(WITHHELD, {})
    if not isinstance(sizes, dict):
        raise ValueError(f"{WITHHELD} must be a map")
    agent = said.get("agent")
    for name, size in sizes.items():
        restored[name] = made_up(size, agent if isinstance(agent, str) else whose)
    return restored


def size_of(prompt: Any) -> dict[str, Any] | None:
    """Return the size of a prompt in any of its forms; None for what is none."""
    if isinstance(prompt, str):
        return {"characters": len(prompt)}
    if not isinstance(prompt, list):
        return None
    if all(isinstance(part, int) for part in prompt):
        return {"tokens": len(prompt)}
    if all(isinstance(part, str) for part in prompt):
        return {"texts": [len(part) for part in prompt]}
    if all(isinstance(part, dict) for part in prompt):
        return {"messages": [[_role(message), _length(message.get("content"))] for message in prompt]}
    return None


def made_up(size: Any, whose: str) -> Any:
    """Return a prompt of this size, the same for the same agent; raises `ValueError` where there is no such size."""
    if not isinstance(size, dict) or len(size) != 1:
        raise ValueError("a prompt has one size")
    ((form, amount),) = size.items()
    if form == "characters":
        return _text(_checked(amount), whose)
    if form == "tokens":
        return random.Random(whose).choices(TOKENS, k=_checked(amount))
    if form == "texts" and isinstance(amount, list):
        return [_text(length, whose) for length in _all_checked(amount)]
    if form == "messages" and isinstance(amount, list) and all(_is_message(entry) for entry in amount):
        lengths = _all_checked([length for _, length in amount])
        return [
            {"role": role, "content": _text(length, whose)}
            for (role, _), length in zip(amount, lengths, strict=True)
        ]
    raise ValueError(f"a prompt has characters, tokens, texts or messages, not {str(form)[:40]!r}")


def _withhold(said: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in said.items() if key not in CONTENT and key != SALT}
    sizes = {key: size_of(said[key]) for key in CONTENT if key in said}
    known = {key: size for key, size in sizes.items() if size is not None}
    return {**kept, WITHHELD: known} if known else kept


def _inside(snapshot: Mapping[str, Any]) -> list[Any]:
    """Return a snapshot's events, but for snapshots: there they mean nothing."""
    events = snapshot.get("events")
    inner = events if isinstance(events, list) else []
    return [
        event for event in inner if not (isinstance(event, dict) and event.get("type") == StateSnapshot.type)
    ]


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= LONGEST_SETTING)


def _role(message: Mapping[str, Any]) -> str:
    role = message.get("role")
    return role[:20] if isinstance(role, str) else "user"


def _length(content: Any) -> int:
    return len(content) if isinstance(content, str) else len(json.dumps(content, default=str))


def _is_message(entry: Any) -> bool:
    return isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)


def _checked(length: Any, most: int = MAX_MESSAGE_BYTES) -> int:
    if isinstance(length, bool) or not isinstance(length, int) or not 0 <= length <= most:
        raise ValueError(f"a prompt's length is a whole number up to {MAX_MESSAGE_BYTES}")
    return length


def _all_checked(lengths: list[Any]) -> list[int]:
    checked = [_checked(length) for length in lengths]
    _checked(sum(checked))
    return checked


def _text(length: int, whose: str) -> str:
    name = whose.encode("ascii", "replace").decode()
    return (f"{name}: " + FILLER * (length // len(FILLER) + 1))[:length]
