"""How the daemon logs: whatever others call themselves, a line is a line, and no flood of theirs is one of ours."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from contextlib import suppress
from io import TextIOBase
from typing import Any, TextIO, cast

import structlog

from scalesim_daemon.settings import LogSettings

MOST_KINDS = 256
EVERY = 1000


class Tolerant(TextIOBase):
    """Lines go to standard error, and are lost where that takes none: its disk is full, or who read it is gone. The
    daemon has better things to do than to end of that."""

    def write(self, text: str) -> int:
        """Write what can be written."""
        with suppress(OSError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Hand over what is waiting, or let it wait."""
        with suppress(OSError):
            sys.stderr.flush()


def configure_logging(settings: LogSettings) -> None:
    """Log one structured line per change to standard error, as text or JSON; libraries' warnings in the same form."""
    as_json = settings.format == "json"
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer()
    rendering = [renderer] if as_json else [harmless, renderer]
    stream = cast(TextIO, Tolerant())
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    common: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*common, *rendering],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(file=stream),
    )
    handler = logging.StreamHandler(stream)
    handler.addFilter(Seldom())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
            foreign_pre_chain=common,
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)


def harmless(_: Any, __: str, said: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Show a terminal no control characters of what others say: they move its cursor, and end lines. Our own lines, and
    those of a traceback, end as they are."""
    return {key: _shown(value) if isinstance(value, str) else value for key, value in said.items()}


def _shown(text: str) -> str:
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape").decode()
        for each in text
    )


class Seldom(logging.Filter):
    """Lets the first of each kind of library's message through, and then every 1,000th: others can make a server warn
    as often as they like. A kind is its text before anything is filled in, and where its exception came from."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[object, ...], int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log it."""
        kind: tuple[object, ...] = (record.name, record.levelno, str(record.msg)[:200], _origin(record))
        if kind not in self._seen and len(self._seen) >= MOST_KINDS:
            kind = ("other",)
        seen = self._seen[kind] = self._seen.get(kind, 0) + 1
        return seen % EVERY == 1


def _origin(record: logging.LogRecord) -> object:
    """Return the type of a record's exception and the innermost line that it passed."""
    if not record.exc_info or record.exc_info[0] is None:
        return None
    trace = record.exc_info[2]
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return record.exc_info[0], trace and (trace.tb_frame.f_code, trace.tb_lineno)
