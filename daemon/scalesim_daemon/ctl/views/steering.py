"""What became of an operator's word, and the settings that hold."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from scalesim_daemon.admin.models import (
    Change,
    ConfigState,
    ModeState,
    OperationState,
    PinsPage,
    PinState,
    Reloaded,
)
from scalesim_daemon.ctl.views.texts import NONE, line, page, table, wall_time


def mode(state: ModeState) -> RenderableType:
    """The mode that holds."""
    return Group(line(f"mode {state.mode} (it was {state.before})"), *_not_kept(state.not_kept))


def pin(state: PinState) -> RenderableType:
    """A pin, or that there is none."""
    what = "not pinned" if state.until is None else f"pinned until {wall_time(state.until)}"
    return Group(line(f"{state.key} is {what}"), *_not_kept(state.not_kept))


def pins(found: PinsPage) -> RenderableType:
    """The pins that hold."""
    return Group(
        table(("agent", "until"), [(pin.key, wall_time(pin.until)) for pin in found.pins]),
        page(len(found.pins), found.offset, found.total, "pins"),
    )


def operations(found: Sequence[OperationState]) -> RenderableType:
    """Operations, and how far each is."""
    columns = ("operation", "asked at", "engine", "step", "of", "state", "detail")
    return table(columns, [_operation_row(operation) for operation in found])


def operation_words(operation: OperationState) -> str:
    """One operation while it goes on, or what came of it."""
    detail = f" ({operation.detail})" if operation.detail else ""
    action = f"{operation.action.value} {operation.kind.value} of {operation.key} on {operation.engine}"
    return f"{action}: {operation.state.value}{detail}"


def config(state: ConfigState) -> RenderableType:
    """The settings that hold, a key and its value on a line."""
    return table(("key", "value"), list(_flat(state.settings, "")))


def reloaded(found: Reloaded) -> RenderableType:
    """What the configuration, read again, has changed."""
    changes = [("holds now", one) for one in found.now]
    changes += [("after a restart", one) for one in found.after_restart]
    if not changes:
        return line("nothing has changed since the daemon's start")
    return table(("key", "before", "after", "when"), [_change_row(change, when) for when, change in changes])


def _operation_row(operation: OperationState) -> tuple[str, ...]:
    return (
        operation.id,
        wall_time(operation.asked_at),
        operation.engine,
        f"{operation.action.value} {operation.kind.value}",
        operation.key,
        operation.state.value,
        operation.detail or NONE,
    )


def _change_row(change: Change, when: str) -> tuple[str, ...]:
    return (change.key, json.dumps(change.before), json.dumps(change.after), when)


def _not_kept(why: str | None) -> list[Text]:
    return [] if why is None else [line(f"  {why}", "yellow")]


def _flat(settings: Mapping[str, Any], above: str) -> Iterator[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key, json.dumps(value)
