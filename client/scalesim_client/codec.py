"""The wire format: what stands in the frames, in msgpack or JSON.

A message is `[topic, seq (8 bytes, big-endian), payload]`, a payload `[ts, [event, ...]]`: `ts` in wall
seconds since the epoch, an event a map with `type`. The first byte of a payload tells JSON (`[`) from msgpack
(an array header).
"""

from __future__ import annotations

import gc
import json as jsonlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Literal, NoReturn

import msgpack

from scalesim_client.events import (
    MAX_EVENTS_PER_MESSAGE,
    MAX_MESSAGE_BYTES,
    Event,
    StateSnapshot,
    check_id,
)

MAX_ARRAY_ITEMS = 2**20
MAX_MAP_ITEMS = 2**10
MAX_JSON_OPENINGS = 2**18
MAX_MSGPACK_OPENINGS = 2**20
"""Arrays and maps, that are dear to make. The edges of the longest path that fits into a message are fewer."""
MAX_SEQ = 2**64 - 1
_SEQ_BYTES = 8
_NUMBERS = (int, float)
_MSGPACK_ARRAYS = frozenset((0x92, 0xDC, 0xDD))
_LARGE = 2**16


def encode(ts: float, events: Iterable[Event | Mapping[str, Any]], *, json: bool = False) -> bytes:
    """Return the payload that says `events` at wall time `ts` (seconds since the epoch).

    Raises `ValueError` for more than 1,000 events, more than 4 MiB, or a value that the format can't hold.
    """
    wires = [event.to_wire() if isinstance(event, Event) else event for event in events]
    if not json:
        return join_events(ts, [pack_event(wire) for wire in wires])
    _check_count(len(wires))
    try:
        text = jsonlib.dumps(
            [ts, wires], default=_plain, allow_nan=False, ensure_ascii=False, separators=(",", ":")
        )
    except (TypeError, RecursionError) as error:
        raise ValueError(f"not representable in JSON: {error}") from error
    return _check_size(text.encode())


def decode(payload: bytes) -> tuple[float, list[Any]]:
    """Return a payload's `ts` and its events, each as it was sent: judging them one by one is the reader's
    part.

    Raises `ValueError` for anything that isn't `[ts, [...]]` within the limits.
    """
    _check_size(payload)
    if len(payload) > _LARGE:
        with _collecting_later():
            value = _decode_any(payload)
    else:
        value = _decode_any(payload)
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("a payload must be [ts, [event, ...]]")
    ts, events = value
    if isinstance(ts, bool) or not isinstance(ts, _NUMBERS) or not _is_finite(ts):
        raise ValueError("ts must be a finite number")
    if not isinstance(events, list):
        raise ValueError("the events must be an array")
    _check_count(len(events))
    return float(ts), events


def pack_event(event: Event | Mapping[str, Any]) -> bytes:
    """Return one event in msgpack; arrays and scalars that have `tolist` (numpy's) become plain numbers.

    Raises `ValueError` for a value that msgpack can't hold.
    """
    wire = event.to_wire() if isinstance(event, Event) else event
    try:
        packed: bytes = msgpack.packb(wire, default=_plain)
    except (TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"not representable in msgpack: {error}") from error
    return packed


def check_packed(packed: bytes) -> None:
    """Raise `ValueError` for an event, packed, that `decode` refuses: binary, keys that aren't text, arrays and maps
    beyond the limits. One such event would cost the whole message that holds it."""
    _decode_msgpack(packed)


def join_events(ts: float, packed: Sequence[bytes]) -> bytes:
    """Return the msgpack payload of events already packed; raises `ValueError` beyond the limits."""
    _check_count(len(packed))
    return _check_size(b"".join((b"\x92", msgpack.packb(float(ts)), _array(packed))))


def join_snapshot(ts: float, part: int, of: int, packed: Sequence[bytes], now: float | None) -> bytes:
    """Return the msgpack payload of one `state.snapshot` part over events already packed.

    Raises `ValueError` beyond the limits.
    """
    head: dict[str, Any] = {"type": StateSnapshot.type, "part": part, "of": of}
    if now is not None:
        head["now"] = now
    header = msgpack.Packer().pack_map_header(len(head) + 1)
    body = b"".join(msgpack.packb(item) for pair in head.items() for item in pair)
    return join_events(ts, [b"".join((header, body, msgpack.packb("events"), _array(packed)))])


def pack_frames(topic: str, seq: int, payload: bytes) -> list[bytes]:
    """Return the frames of message number `seq` (0 to 2**64-1) of the source `topic`."""
    return [topic.encode(), seq.to_bytes(_SEQ_BYTES, "big"), payload]


def unpack_frames(frames: Sequence[bytes]) -> tuple[str, int, bytes]:
    """Return topic, sequence number and payload; raises `ValueError` where the frames aren't these three."""
    if len(frames) != 3:
        raise ValueError(f"a message has 3 frames, got {len(frames)}")
    topic, seq, payload = frames
    if len(seq) != _SEQ_BYTES:
        raise ValueError(f"the sequence number has {_SEQ_BYTES} bytes, got {len(seq)}")
    return _name_of(topic), int.from_bytes(seq, "big"), payload


@lru_cache
def _name_of(topic: bytes) -> str:
    name = topic.decode()
    check_id("topic", name)
    return name


def pack_control(
    kind: Literal["welcome", "resync"],
    *,
    ts: float = 0.0,
    last_seq: int,
    resync: bool = False,
    error: str | None = None,
) -> bytes:
    """Return the payload of what a daemon says to a source.

    `welcome` answers every `stream.opened`; `resync` asks for a snapshot. `last_seq` is the newest sequence
    number that the daemon has admitted, -1 where it doesn't know the source; `error` says why a stream is
    refused.
    """
    control: dict[str, Any] = {"type": kind, "last_seq": last_seq, "resync": resync or kind == "resync"}
    if error is not None:
        control["error"] = error
    return encode(ts, [control])


def _array(packed: Sequence[bytes]) -> bytes:
    header: bytes = msgpack.Packer().pack_array_header(len(packed))
    return header + b"".join(packed)


def _decode_any(payload: bytes) -> Any:
    if payload[:1] == b"[":
        return _decode_json(payload)
    if payload and payload[0] in _MSGPACK_ARRAYS:
        return _decode_msgpack(payload)
    raise ValueError("a payload must be a JSON or msgpack array")


@contextmanager
def _collecting_later() -> Iterator[None]:
    """Of what is made of a message nothing is garbage yet: to look through all of it for some, over and over while it
    becomes more, takes longer than to make it."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _decode_json(payload: bytes) -> Any:
    openings = payload.count(b"[") + payload.count(b"{")
    if openings > MAX_JSON_OPENINGS:
        raise ValueError(f"a message holds at most {MAX_JSON_OPENINGS} '[' and '{{' in JSON, got {openings}")
    try:
        text = payload.decode()
        value = jsonlib.loads(text, parse_constant=_refuse_constant)
        if "\\u" in text:
            # A lone surrogate, escaped, is valid JSON but no UTF-8: it would fail where the text is stored.
            jsonlib.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"malformed JSON: {error}") from error
    return value


def _decode_msgpack(payload: bytes) -> Any:
    try:
        return msgpack.unpackb(
            payload,
            max_array_len=min(len(payload), MAX_ARRAY_ITEMS),
            max_map_len=MAX_MAP_ITEMS,
            max_bin_len=0,
            max_ext_len=0,
            **(_counting() if len(payload) > MAX_MSGPACK_OPENINGS else {}),
        )
    except (ValueError, MemoryError) as error:
        raise ValueError(f"malformed msgpack: {error or type(error).__name__}") from error


def _counting() -> dict[str, Any]:
    """Return hooks for a decoder that end it, with a `ValueError`, where there are too many arrays and maps."""
    left = MAX_MSGPACK_OPENINGS

    def count(value: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise ValueError(f"a message holds at most {MAX_MSGPACK_OPENINGS} arrays and maps in msgpack")
        return value

    return {"list_hook": count, "object_hook": count}


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"a {type(value).__name__} has no place in an event")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check_count(count: int) -> None:
    if count > MAX_EVENTS_PER_MESSAGE:
        raise ValueError(f"a message holds at most {MAX_EVENTS_PER_MESSAGE} events, got {count}")


def _check_size(payload: bytes) -> bytes:
    if len(payload) > MAX_MESSAGE_BYTES:
        raise ValueError(f"a message holds at most {MAX_MESSAGE_BYTES} bytes, got {len(payload)}")
    return payload
