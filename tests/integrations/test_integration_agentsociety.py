"""The real workflow of AgentSociety's citizens, told to a real daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.integrations.theatre import playing_in, python_of

ENDS = {"1": [120, 300], "2": [240, 480]}
LAST = 5
pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


def test_the_citizens_are_foreseen(tmp_path: Path) -> None:
    python = python_of("agentsociety")

    async def scene() -> None:
        async with playing_in(python, tmp_path, "agentsociety_citizens", steps=LAST) as play:
            async for step in play.steps:
                now = step * 60
                left = {name: next(end for end in ends if end > now) - now for name, ends in ENDS.items()}
                await play.foresees(left)

    asyncio.run(scene())
