"""From the wire to typed events; one bad event never costs its neighbours.

A message whose events are all plain is decoded by one typed decoder (`read_plain`): its types say what is valid, so
that no line of Python looks at an event. They say less than all that is valid: what they don't take goes through
`parse_all`, event by event, which knows the rules and says what is wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import MISSING, dataclass, fields
from functools import reduce
from operator import or_
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from scalesim_client.codec import MAX_ARRAY_ITEMS
from scalesim_client.events import (
    EVENT_TYPES,
    MAX_EVENTS_PER_MESSAGE,
    MAX_ID_BYTES,
    MAX_MESSAGE_BYTES,
    Event,
    MemoryBound,
    StateSnapshot,
    StreamClosed,
    StreamOpened,
)

_UTF8_BYTES = 4
"""At most, per character."""
_MAX = sys.float_info.max
_NEVER_PLAIN = {StreamOpened, StreamClosed, StateSnapshot, MemoryBound}
"""What is said of streams is rare, and content may be anything."""


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


def read_plain(payload: bytes) -> list[Event] | None:
    """Return a payload's events where all of them are plain, None where they are to be looked at one by one.

    These are objects of other classes than `scalesim_client.events`, with the same `type` and the same fields.
    """
    if len(payload) > MAX_MESSAGE_BYTES:
        return None
    try:
        events = (_read_json if payload[:1] == b"[" else _read_msgpack)(payload)[1]
    except (ValueError, RecursionError):
        return None
    return events


def _plain(kind: type[Event]) -> type[msgspec.Struct]:
    """Return the class as which an event of this kind is decoded. A field that isn't known is not plain."""
    hints = get_type_hints(kind)
    together = kind.check_together
    return msgspec.defstruct(
        kind.__name__,
        [
            (field.name, _narrow(hints[field.name]), *(() if field.default is MISSING else (field.default,)))
            for field in fields(kind)
        ],
        namespace={"type": kind.type}
        | ({} if together is Event.check_together else {"__post_init__": together}),
        tag=kind.type,
        rename=lambda name: name.rstrip("_"),
        forbid_unknown_fields=True,
        kw_only=True,
        gc=False,
    )


def _narrow(kind: Any, least: float = 0.0) -> Any:
    """Return a type all of whose values are valid, whatever the field means: names that can't be too long, amounts that
    aren't negative, coordinates (they come in pairs) that are finite."""
    if kind is str:
        return Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES // _UTF8_BYTES)]
    if kind is float:
        return Annotated[float, Meta(ge=least, le=_MAX)]
    inner = get_args(kind)
    if get_origin(kind) is tuple:
        return tuple[tuple(_narrow(one, -_MAX) for one in inner)]  # type: ignore[misc]  # a type that is computed
    if get_origin(kind) is list:
        return Annotated[list[_narrow(*inner)], Meta(max_length=MAX_ARRAY_ITEMS)]  # type: ignore[misc]  # as above
    if get_origin(kind) is UnionType:
        return reduce(or_, map(_narrow, inner))
    return kind


_PLAIN = {kind: _plain(kind) for kind in EVENT_TYPES.values() if kind not in _NEVER_PLAIN}
_TS: Any = Annotated[float, Meta(ge=-_MAX, le=_MAX)]
_EVENT: Any = reduce(or_, _PLAIN.values())
_MESSAGE: Any = tuple[_TS, Annotated[list[_EVENT], Meta(max_length=MAX_EVENTS_PER_MESSAGE)]]
_read_msgpack: Callable[[bytes], tuple[float, list[Any]]] = msgspec.msgpack.Decoder(_MESSAGE).decode
_read_json: Callable[[bytes], tuple[float, list[Any]]] = msgspec.json.Decoder(_MESSAGE).decode
