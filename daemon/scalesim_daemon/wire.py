"""From maps off the wire to typed events; one bad event never costs its neighbours."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from scalesim_client.events import EVENT_TYPES, Event


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that was not taken: its `type` as sent (or `?`) and why. `unknown` marks an unknown type."""

    type: str
    reason: str
    unknown: bool = False


def parse(raw: object) -> Event | Refused:
    """Turn one decoded map into an event, or say why it can't be taken. Unknown fields are ignored."""
    if not isinstance(raw, dict):
        return Refused("?", f"an event must be a map, got {type(raw).__name__}")
    name = raw.get("type")
    if not isinstance(name, str):
        return Refused("?", "an event needs a 'type' that is a string")
    cls = EVENT_TYPES.get(name)
    if cls is None:
        return Refused(name[:64], f"unknown event type {name[:64]!r}", unknown=True)
    fields: dict[Any, Any] = raw
    if "for" in raw:
        fields = {**raw, "for_": raw["for"]}
    agent = fields.get("agent")
    if type(agent) is str:
        # Whoever keeps something by an agent's name keeps the same string.
        fields["agent"] = sys.intern(agent)
    try:
        return msgspec.convert(fields, cls)
    except msgspec.ValidationError as error:
        return Refused(name, str(error))


def said_at(raw: dict[str, Any]) -> float | None:
    """Return the clock value at which an event inside a snapshot was said, None where it has no valid one."""
    now = raw.get("now")
    if isinstance(now, bool) or not isinstance(now, int | float):
        return None
    return float(now) if 0 <= now <= sys.float_info.max else None


def parse_all(raws: Iterable[object]) -> tuple[list[Event], list[Refused]]:
    """Parse a message's events in order; return those taken and those refused."""
    taken: list[Event] = []
    refused: list[Refused] = []
    for raw in raws:
        event = parse(raw)
        if isinstance(event, Refused):
            refused.append(event)
        else:
            taken.append(event)
    return taken, refused
