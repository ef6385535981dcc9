"""Words and tables that all views are made of. Ids are shown as text, never as markup."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from scalesim_daemon.api_models import ClockState, PlannedStep

UNKNOWN = "?"
NONE = "-"


def line(text: str, style: str = "") -> Text:
    """Plain text; what isn't printable could steer the terminal and is shown as a replacement character."""
    return Text("".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text), style)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table whose cells break rather than lose a letter."""
    made = Table(title_justify="left")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(line(cell) for cell in row))
    return made


def page(shown: int, offset: int, total: int, what: str) -> Text:
    """How much of a list is shown."""
    after = f" after the first {offset}" if offset else ""
    return line(f"{shown} of {total} {what}{after}")


def failure(problem: str, remedy: str | None) -> RenderableType:
    """What went wrong, and what to do about it."""
    lines = [line(problem, "red")]
    if remedy is not None:
        lines.append(line(f"  {remedy}"))
    return Group(*lines)


def number(value: int | None) -> str:
    """A count."""
    return UNKNOWN if value is None else str(value)


def share(value: float | None) -> str:
    """A share of 1 as percents."""
    return UNKNOWN if value is None else f"{value:.1%}"


def seconds(value: float | None) -> str:
    """Wall seconds; none are far away."""
    return NONE if value is None or not math.isfinite(value) else f"{value:.3g}"


def size(value: int | None) -> str:
    """Bytes."""
    if value is None:
        return UNKNOWN
    power = min((max(value, 1).bit_length() - 1) // 10, 4)
    return f"{value / 1024**power:.4g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"


def wall_time(at: float) -> str:
    """A wall time in this place, with its day where that isn't today."""
    when = datetime.fromtimestamp(at).astimezone()
    today = when.date() == datetime.now().astimezone().date()
    return when.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")


def clock(state: ClockState | None) -> str:
    """A clock's value."""
    return UNKNOWN if state is None else f"{state.now:g} {state.kind}"


def step_words(step: PlannedStep) -> str:
    """What a step does, and with how much."""
    return f"{step.action.value} {step.kind.value} {step.start}-{step.stop}"
