"""The command that opens `top`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import typer

from scalesim_daemon.api_models import Report
from scalesim_daemon.ctl.client import DEFAULT_URL, FAILED, Daemon, Failure, read_token
from scalesim_daemon.ctl.options import TokenFile, Url, ending


def top(url: Url = DEFAULT_URL, token_file: TokenFile = None) -> None:
    """Agents by distance, engines and the plan as they change; pin, unpin, prefetch, evict and pause by a key."""
    with ending():
        code = asyncio.run(_top(url, token_file))
    if code:
        raise typer.Exit(code)


async def _top(url: str, token_file: Path | None) -> int:
    # Textual draws on standard error.
    if not all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr)):
        raise Failure(
            FAILED, "top needs a terminal", "elsewhere, `scalesimctl agents --watch` shows the nearest"
        )
    # Textual is loaded for this command alone: the others answer sooner without it.
    from scalesim_daemon.ctl.top.app import Top

    async with Daemon(url, read_token(token_file)) as daemon:
        await daemon.ask("/v1/report", Report)
        screen = Top(daemon)
        await screen.run_async()
    return screen.return_code or 0
