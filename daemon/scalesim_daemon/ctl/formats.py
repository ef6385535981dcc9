"""What a command prints: a table for people, or the API's own answer as JSON or YAML, once or again and again."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn

import typer
import yaml
from rich.console import Console, RenderableType
from rich.live import Live

from scalesim_daemon.ctl.client import Failure
from scalesim_daemon.ctl.views.texts import failure

# Where the output is no terminal, a row of a table is one line, however long.
UNSQUEEZED = 100_000


class Format(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer as plain data and as people see it, and the exit status that it means."""

    plain: Any
    view: RenderableType
    code: int = 0


def show(shown: Shown, how: Format) -> None:
    """Print an answer by itself."""
    match how:
        case Format.TABLE:
            print_view(shown.view)
        case Format.JSON:
            typer.echo(json.dumps(shown.plain, indent=2))
        case Format.YAML:
            typer.echo(_yaml(shown.plain), nl=False)


def show_one_of_many(shown: Shown, how: Format) -> None:
    """Print an answer that others follow: JSON on one line, YAML as one document of several."""
    match how:
        case Format.TABLE:
            print_view(shown.view)
        case Format.JSON:
            typer.echo(json.dumps(shown.plain, separators=(",", ":")))
        case Format.YAML:
            typer.echo(f"---\n{_yaml(shown.plain)}", nl=False)


async def show_again_and_again(ask: Callable[[], Awaitable[Shown]], how: Format, seconds: float) -> NoReturn:
    """Ask every so many seconds, until interrupted: on a terminal each view takes the last one's place."""
    if how is not Format.TABLE or not sys.stdout.isatty():
        while True:
            show_one_of_many(await ask(), how)
            await asyncio.sleep(seconds)
    with Live((await ask()).view, console=_console(), screen=True, auto_refresh=False) as live:
        while True:
            await asyncio.sleep(seconds)
            live.update((await ask()).view, refresh=True)


def print_view(view: RenderableType) -> None:
    """Print something for people."""
    _console().print(view, soft_wrap=True)


def tell(problem: Failure) -> None:
    """Say on standard error what went wrong, and what to do about it."""
    error_console().print(failure(problem.problem, problem.remedy), soft_wrap=True)


def error_console() -> Console:
    """Return where things are said that are no answer."""
    return Console(stderr=True)


def _console() -> Console:
    squeezed = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=None if squeezed else UNSQUEEZED)


def _yaml(plain: Any) -> str:
    # Escaped like JSON: what isn't ASCII could steer a terminal.
    return str(yaml.safe_dump(plain, sort_keys=False, width=UNSQUEEZED))
