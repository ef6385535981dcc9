"""Mesa's real step loop, told to a real daemon."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.integrations.theatre import playing_here

PACES = {"ada": 2, "ben": 3, "cleo": 5}
MEETING = 5
LAST = 5


def test_the_street_is_foreseen(tmp_path: Path) -> None:
    async def scene() -> None:
        async with playing_here(tmp_path, "mesa_village", "street", "step", steps=LAST) as play:
            async for step in play.steps:
                foreseen = {name: pace - (step - 1) % pace for name, pace in PACES.items()}
                met = {"eve": MEETING - step, "finn": MEETING - step}
                await play.foresees({**foreseen, **met})
                if step == LAST:
                    await play.learn({"ada", "ben"})

    asyncio.run(scene())
