"""`scalesimctl events`: what changes, as it changes."""

from __future__ import annotations

import asyncio
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from scalesim_daemon.ctl.client import DEFAULT_URL, FAILED, Daemon, Failure, read_token
from scalesim_daemon.ctl.formats import Format, Shown, show_one_of_many
from scalesim_daemon.ctl.options import FormatOption, TokenFile, Url, ending
from scalesim_daemon.ctl.views.stream import lines


class Kind(StrEnum):
    """What the stream tells of."""

    SNAPSHOT = "snapshot"
    MODE = "mode"
    CLOCKS = "clocks"
    AGENTS = "agents"
    DECISIONS = "decisions"


def events(
    kinds: Annotated[list[Kind] | None, typer.Argument(help="Only these; without any, all.")] = None,
    url: Url = DEFAULT_URL,
    token_file: TokenFile = None,
    how: FormatOption = Format.TABLE,
) -> None:
    """Follow what changes, line by line, until interrupted: first a snapshot, then modes, clocks, agents, decisions."""
    with ending():
        asyncio.run(_follow(url, token_file, how, set(kinds or Kind)))


async def _follow(url: str, token_file: Path | None, how: Format, kinds: set[Kind]) -> None:
    async with Daemon(url, read_token(token_file)) as daemon:
        async for message in daemon.follow():
            if message.event in kinds:
                at = datetime.now().astimezone().strftime("%H:%M:%S")
                show_one_of_many(Shown(message._asdict(), lines(message, at)), how)
    raise Failure(
        FAILED, f"the daemon at {daemon.url} ended the stream", "it stops, or its tokens have changed"
    )
