"""The file of a recording, version 1: lines of JSON, UTF-8, each a map that ends with a line end.

The first is `{"scalesim": "recording", "version": 1, "at": ..., "content": ...}`: `at` in wall seconds since the epoch;
`content` says whether prompts are in it. Every other line has `after`, seconds since the first, and is one of

- `{"after", "source", "seq", "events"}`: a message as the gate got it, by whichever door; `seq` is null where the door
  has no numbering, and `events` may hold what the gate refused;
- `{"after", "agent", "path", "body"}`: a request to an engine, `agent` null where it named none;
- `{"after", "end"}`: the last line, `closed`, or `full` where the file had reached its size. It is missing where the
  daemon is still recording, or crashed: then the last line may be cut.

Without `content` an event or a body has, instead of prompts, `withheld` with their sizes (`content.py`). NaN and
infinities, which JSON lacks and events may hold, are written as Python does. Readers ignore fields they don't know.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any, BinaryIO, Literal, TypeVar

import msgspec

from scalesim_client.codec import MAX_SEQ
from scalesim_client.events import MAX_EVENTS_PER_MESSAGE, check_id

MAGIC = "recording"
VERSION = 1
MAX_LINE_BYTES = 32 * 1024**2
"""No message is longer: of its 4 MiB a byte takes six at most, where it is a control character."""


class BadRecording(ValueError):
    """The file can't be read from byte `offset` on; the text says why."""

    def __init__(self, offset: int, reason: str) -> None:
        super().__init__(f"byte {offset}: {reason}")
        self.offset = offset


class Header(msgspec.Struct, frozen=True):
    """The first line."""

    scalesim: str
    version: int
    at: float
    content: bool


class Message(msgspec.Struct, frozen=True):
    """Events of one source, as they came in."""

    after: float
    source: str
    seq: int | None
    events: list[Any]


class Request(msgspec.Struct, frozen=True):
    """A request to an engine. `path` is that of its URL."""

    after: float
    agent: str | None
    path: str
    body: dict[str, Any]


class End(msgspec.Struct, frozen=True):
    """The last line."""

    after: float
    end: Literal["closed", "full"]


Record = Message | Request | End
Line = TypeVar("Line", Header, Message, Request, End)


def to_line(record: Header | Record) -> bytes:
    """Return a record as a line of the file."""
    said = {name: getattr(record, name) for name in record.__struct_fields__}
    text = json.dumps(said, ensure_ascii=False, separators=(",", ":"), skipkeys=True, default=lambda _: None)
    return text.encode(errors="backslashreplace") + b"\n"


def read_header(file: BinaryIO) -> tuple[Header, int]:
    """Return the first line and the offset of its end. Raises `BadRecording` where the file isn't ours, or has another
    version."""
    line = file.readline(MAX_LINE_BYTES + 1)
    try:
        said = _parse(line)
    except ValueError:
        said = None
    if not isinstance(said, dict) or said.get("scalesim") != MAGIC:
        raise BadRecording(0, "this is no recording: scalesimd record writes them")
    version = said.get("version")
    if version != VERSION:
        raise BadRecording(0, f"version {json.dumps(version)[:40]} is not supported, only {VERSION}")
    return _typed(said, Header, 0), len(line)


def read_records(file: BinaryIO, offset: int) -> Iterator[tuple[int, Record]]:
    """Yield the records from byte `offset` on, each with the offset of its end. Raises `BadRecording` at the first that
    can't be read; those before it have been given."""
    while line := file.readline(MAX_LINE_BYTES + 1):
        if not line.endswith(b"\n"):
            if len(line) > MAX_LINE_BYTES:
                raise BadRecording(offset, f"a line of more than {MAX_LINE_BYTES} bytes is none of ours")
            raise BadRecording(offset, "the file is cut off in the middle of a line: all before it is whole")
        record = _record(line, offset)
        offset += len(line)
        yield offset, record
        if isinstance(record, End):
            if file.read(1):
                raise BadRecording(offset, "something follows the end of the recording")
            return


def _record(line: bytes, offset: int) -> Record:
    try:
        said = _parse(line)
    except ValueError as error:
        raise BadRecording(offset, f"the line is damaged: {error}") from None
    if not isinstance(said, dict):
        raise BadRecording(offset, "the line is damaged: it is no map")
    record: Record
    if "events" in said:
        record = _typed(said, Message, offset)
        _check_message(record, offset)
    elif "body" in said:
        record = _typed(said, Request, offset)
        if not record.path.startswith("/"):
            raise BadRecording(offset, "the line is damaged: path must start with /")
    else:
        record = _typed(said, End, offset)
    if not (math.isfinite(record.after) and record.after >= 0):
        raise BadRecording(offset, "the line is damaged: after must be finite and not negative")
    return record


def _check_message(message: Message, offset: int) -> None:
    try:
        check_id("source", message.source)
    except ValueError as error:
        raise BadRecording(offset, f"the line is damaged: {error}") from None
    if message.seq is not None and not 0 <= message.seq <= MAX_SEQ:
        raise BadRecording(offset, "the line is damaged: seq must be from 0 to 2**64-1")
    if len(message.events) > MAX_EVENTS_PER_MESSAGE:
        raise BadRecording(offset, f"the line is damaged: events are at most {MAX_EVENTS_PER_MESSAGE}")


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no UTF-8: {error.reason}") from None
    except RecursionError as error:
        raise ValueError("its maps and lists are nested too deeply") from error


def _typed(said: dict[str, Any], kind: type[Line], offset: int) -> Line:
    try:
        return msgspec.convert(said, kind)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise BadRecording(offset, f"the line is damaged: {error}") from None
