"""Mesa-LLM's real agents on Mesa's real step loop, told to a real daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.integrations.theatre import playing_in, python_of

LAST = 5
pytestmark = pytest.mark.integration


def test_the_citizens_are_foreseen(tmp_path: Path) -> None:
    python = python_of("mesa-llm")

    async def scene() -> None:
        async with playing_in(python, tmp_path, "mesa_llm_citizens", steps=LAST) as play:
            async for step in play.steps:
                await play.foresees({"1": 1, "2": 3 - (step - 1) % 3})
                if step == LAST:
                    await play.learn({"1", "2"})

    asyncio.run(scene())
