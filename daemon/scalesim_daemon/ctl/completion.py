"""What the shell proposes: agents of a daemon that answers at once, else nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import typer

from scalesim_daemon.api_models import AgentsPage
from scalesim_daemon.ctl.client import DEFAULT_URL, Daemon, Failure, read_token

# Whoever presses the tabulator key waits for this.
WITHIN_SECONDS = 1.0
MOST = 100


def complete_agent(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the keys of agents that begin so, the nearest first."""
    url, file = ctx.params.get("url") or DEFAULT_URL, ctx.params.get("token_file")
    try:
        return asyncio.run(_agents(str(url), Path(file) if file else None, incomplete))
    except Failure:
        return []


async def _agents(url: str, token_file: Path | None, begin: str) -> list[str]:
    async with Daemon(url, read_token(token_file), WITHIN_SECONDS) as daemon:
        page = await daemon.ask("/v1/agents", AgentsPage, text=begin, limit=MOST)
    return [agent.key for agent in page.agents if agent.key.startswith(begin) and agent.key.isprintable()]
