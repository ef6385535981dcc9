"""OASIS's real environment and platform, told to a real daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.integrations.theatre import playing_in, python_of

LAST = 4
LONG = {"blocks": 1024, "max_model_len": 32_768, "max_num_batched_tokens": 32_768}
"""The tools that an agent has are longer than its prompt."""
pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


def test_the_forum_is_foreseen(tmp_path: Path) -> None:
    python = python_of("oasis")

    async def scene() -> None:
        async with playing_in(python, tmp_path, "oasis_forum", steps=LAST + 1, **LONG) as play:
            async for step in play.steps:
                # Agent 0's messages of the steps before are recommended to all; who was served has been invoked.
                readers = {1, 2, 3, 4} - {1 + step % 4} if step else set()
                await play.foresees({str(reader): 1 for reader in readers})
                if step == LAST:
                    await play.learn({"0", "1"})

    asyncio.run(scene())
