"""The feed's third door: events in the body of an HTTP request, for what speaks no ZeroMQ."""

from __future__ import annotations

from collections.abc import AsyncIterable, Sequence
from typing import Any

from scalesim_client.codec import decode
from scalesim_client.events import MAX_MESSAGE_BYTES
from scalesim_daemon.gate import Verdict

_BLANKS = b" \t\r\n"
# A msgpack map starts with 80 to 8f (fixmap), de or df (map 16, map 32).
_MSGPACK_MAPS = frozenset((*range(0x80, 0x90), 0xDE, 0xDF))


class MessageTooLarge(ValueError):
    """The body is longer than a message may be."""


class MalformedMessage(ValueError):
    """There is nothing in the body that could be taken; the text names what is wrong."""


async def read_body(chunks: AsyncIterable[bytes]) -> bytes:
    """Return a request's body; raises `MessageTooLarge` as soon as it is longer than 4 MiB."""
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > MAX_MESSAGE_BYTES:
            raise MessageTooLarge(f"a message holds at most {MAX_MESSAGE_BYTES} bytes: send several")
    return bytes(body)


def events_in(body: bytes) -> Sequence[Any]:
    """Return the events of `[ts, [event, ...]]`, or the one event that the body is, in JSON or msgpack.

    Raises `MalformedMessage`.
    """
    body = body.lstrip(_BLANKS)
    try:
        if body[:1] == b"{":
            return _only(decode(b"[0,[" + body + b"]]")[1])
        if body and body[0] in _MSGPACK_MAPS:
            return _only(decode(b"\x92\x00\x91" + body)[1])
        return decode(body)[1]
    except ValueError as error:
        raise MalformedMessage(str(error)) from error


def _only(events: Sequence[Any]) -> Sequence[Any]:
    if len(events) != 1:
        raise MalformedMessage("several events are sent as [ts, [event, ...]]")
    return events


def check_verdict(verdict: Verdict) -> None:
    """Raise `MalformedMessage` where nothing of a message could be taken because it was wrong; an event of an
    unknown type isn't wrong: a newer client may send it."""
    faults = [refused for refused in verdict.refused if not refused.unknown]
    if faults and not verdict.accepted:
        raise MalformedMessage("; ".join(f"{fault.type}: {fault.reason}" for fault in faults[:10]))
