"""What others call themselves moves no terminal's cursor and ends no line of the log; no flood of theirs fills it."""

from __future__ import annotations

import logging
import sys

import pytest
import structlog

from scalesim_daemon.logs import EVERY, MOST_KINDS, Seldom, harmless

EVIL = "a\x1b[2J\x07\x9b\u2028\x85\r\x00b"


def test_no_name_moves_a_cursor_or_ends_a_line() -> None:
    said: dict[str, object] = {"event": "stream opened", "source": EVIL, "simulation": f"x\n[info] {EVIL}"}
    shown = structlog.dev.ConsoleRenderer(colors=False)(None, "info", harmless(None, "info", {**said}))
    assert shown.isprintable() and "\\x1b[2J" in shown
    # What people write is shown as it is.
    assert harmless(None, "info", {"agent": "Zoë/日本", "n": 3}) == {"agent": "Zoë/日本", "n": 3}


def test_what_others_can_have_a_library_say_is_said_seldom() -> None:
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    handler.addFilter(Seldom())

    def say(text: str, *filled: object, error: Exception | None = None) -> None:
        trouble = None if error is None else (type(error), error, error.__traceback__)
        handler.handle(logging.LogRecord("uvicorn.error", logging.WARNING, "", 0, text, filled, trouble))

    for number in range(EVERY + 1):
        say("Invalid HTTP request received from %s.", number)
    assert heard == [f"Invalid HTTP request received from {number}." for number in (0, EVERY)]
    heard.clear()
    for number in range(3 * MOST_KINDS):
        say(f"kind {number}")
    assert len(heard) == MOST_KINDS
    heard.clear()
    # Of two errors at two places neither hides the other.
    fresh = Seldom()
    for error in (_raised(ValueError), _raised(KeyError), _raised(ValueError)):
        record = logging.LogRecord("uvicorn.error", logging.ERROR, "", 0, "in ASGI", (), error)
        heard += ["said"] if fresh.filter(record) else []
    assert len(heard) == 2


def _raised(kind: type[Exception]) -> object:
    try:
        raise kind
    except kind:
        return sys.exc_info()


@pytest.mark.parametrize("level", ["info", "warning"])
def test_a_line_in_json_is_one_line(level: str) -> None:
    shown = structlog.processors.JSONRenderer()(None, level, {"event": "x", "source": EVIL + "\n"})
    assert isinstance(shown, str) and shown.isascii() and "\n" not in shown
