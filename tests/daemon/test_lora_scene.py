"""Fifty LoRAs on the emulated engine: the same scene that real engines are tested with.

It runs at a third of real time: where calls take no time at all, their announcements overtake each other, and which of
two LoRAs was used last can't be known from outside.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.adapters.emulator_rig import make_lora
from tests.daemon.live import emulator
from tests.engines.lora_scene import HOST_PLACES, SLOTS, Scene, play


def test_no_request_fails_whatever_becomes_of_the_daemon(tmp_path: Path) -> None:
    originals = [make_lora(tmp_path / "originals" / f"lora{number:02}") for number in range(50)]
    with emulator(tmp_path, blocks=64, max_loras=SLOTS, max_cpu_loras=HOST_PLACES, time_scale=0.3) as engine:

        async def held() -> set[str]:
            return {lora.name for lora in engine._incarnation._engine.places.host}

        asyncio.run(play(Scene(engine.url, originals, tmp_path, held, steps=30)))
