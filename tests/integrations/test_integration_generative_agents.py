"""Personas with the attributes of generative agents, moved as their server moves them, told to a real daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.integrations.theatre import playing_here

MINUTES = {"Isabella": 1, "Klaus": 2}
STEP = 10
LAST = 7
MEETING = 80
"""Seconds until Maria, 12 tiles from Tom at a tile per step, is within the 4 tiles that both see."""


def test_the_town_is_foreseen(tmp_path: Path) -> None:
    async def scene() -> None:
        async with playing_here(tmp_path, "generative_town", "town", "sim_seconds", steps=LAST + 1) as play:
            async for step in play.steps:
                left = {
                    name: 60 * minutes - step * STEP % (60 * minutes) for name, minutes in MINUTES.items()
                }
                met = {"Maria": MEETING - step * STEP, "Tom": MEETING - step * STEP}
                await play.foresees({**left, **met})
                if step == LAST:
                    await play.learn({"Isabella", "Klaus"})

    asyncio.run(scene())
