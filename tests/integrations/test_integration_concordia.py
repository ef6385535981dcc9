"""Concordia's real sequential engine, told to a real daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.integrations.theatre import playing_in, python_of

NAMES = ["Alice", "Bob", "Carol"]
LAST = 5
pytestmark = pytest.mark.integration


def test_the_turns_are_foreseen(tmp_path: Path) -> None:
    python = python_of("concordia")

    async def scene() -> None:
        async with playing_in(python, tmp_path, "concordia_talk", steps=LAST) as play:
            async for step in play.steps:
                # Whoever acted last waits for two others, as after every step.
                order = [NAMES[(step + place) % 3] for place in range(3)]
                await play.foresees({name: place for place, name in enumerate(order)})
                if step == LAST:
                    await play.learn({"Alice", "Bob"})

    asyncio.run(scene())
