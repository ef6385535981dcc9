"""Writes what the daemon hears to a file as it comes. Where it can't, the daemon works on without."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from io import FileIO
from itertools import count
from pathlib import Path
from time import monotonic, time
from typing import Any, Literal

import structlog

from scalesim_daemon.recording.content import withhold_body, withhold_event
from scalesim_daemon.recording.format import MAGIC, VERSION, End, Header, Message, Record, Request, to_line
from scalesim_daemon.settings import ConfigError, RecordSettings

LAST_LINE_BYTES = 64

log = structlog.get_logger(__name__)


class Recorder:
    """One recording. A line is written at once and whole, so that a crash costs none before it."""

    def __init__(self, path: Path, *, content: bool, max_bytes: int) -> None:
        """Start a recording in a new file: `path`, or where that is there `path` with the first free number, so that
        a daemon that is started again overwrites nothing. Raises `OSError`."""
        self._content = content
        self._since = monotonic()
        self._left = max_bytes - LAST_LINE_BYTES
        self._skipped = False
        self._file: FileIO | None = _create(path)
        self.path = Path(str(self._file.name))
        self._put(to_line(Header(MAGIC, VERSION, time(), content)))

    @property
    def left_bytes(self) -> int:
        """How much more may be written, 0 once the recording has ended."""
        return 0 if self._file is None else self._left

    def message(self, source: str, seq: int | None, events: Sequence[Any]) -> None:
        """Record a message that the gate is about to get."""
        if self._file is not None:
            kept = list(events) if self._content else [withhold_event(event) for event in events]
            self._write(Message(self._after(), source, seq, kept))

    def request(self, agent: str | None, path: str, body: Mapping[str, Any]) -> None:
        """Record a request to an engine as it is sent; `agent` is its key, where it names one."""
        if self._file is not None:
            kept = dict(body) if self._content else withhold_body(body)
            self._write(Request(self._after(), agent, path, kept))

    def close(self) -> None:
        """End the recording."""
        self._end("closed")

    def _after(self) -> float:
        return round(monotonic() - self._since, 6)

    def _write(self, record: Record) -> None:
        try:
            line = to_line(record)
        except (ValueError, RecursionError) as error:
            if not self._skipped:
                log.warning("messages are not in the recording", reason=str(error))
            self._skipped = True
            return
        if len(line) > self._left:
            self._end("full")
            log.warning(
                "recording full", path=str(self.path), remedy="raise record.max_bytes for the next one"
            )
        else:
            self._put(line)

    def _end(self, why: Literal["closed", "full"]) -> None:
        if self._file is not None:
            self._left += LAST_LINE_BYTES
            self._put(to_line(End(self._after(), why)))
        self._stop()

    def _put(self, line: bytes) -> None:
        if self._file is None:
            return
        try:
            written = self._file.write(line)
        except OSError as error:
            log.warning("recording stopped", path=str(self.path), reason=error.strerror)
            self._stop()
            return
        self._left -= len(line)
        if written != len(line):
            log.warning("recording stopped", path=str(self.path), reason="the disk is full")
            self._stop()

    def _stop(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def open_recorder(settings: RecordSettings) -> Recorder | None:
    """Return a recorder where one is wanted. Raises `ConfigError` where its file can't be made."""
    if settings.path is None:
        return None
    try:
        recorder = Recorder(settings.path, content=settings.content, max_bytes=settings.max_bytes)
    except OSError as error:
        raise ConfigError(f"record.path: {settings.path}: {error.strerror}") from error
    log.info("recording", path=str(recorder.path), content=settings.content)
    return recorder


def _create(path: Path) -> FileIO:
    """Prompts and names are nobody else's business: the file is its owner's alone."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    for number in count():
        candidate = path if number == 0 else path.with_name(f"{path.stem}.{number}{path.suffix}")
        try:
            candidate.touch(mode=0o600, exist_ok=False)
        except FileExistsError:
            continue
        return FileIO(candidate, "ab")
    raise AssertionError
