"""When the loop cycles: at once for what presses, and for dues once some have come together."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from scalesim_daemon import loop
from tests.daemon.still import open_stream, say, still_sidecar

TURNS = 20


def test_dues_wait_for_others_and_what_presses_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "GATHERED_SECONDS", 60.0)
    monkeypatch.setattr(loop, "TICK_SECONDS", 60.0)
    sidecar = still_sidecar(tmp_path)
    open_stream(sidecar)

    async def body() -> None:
        running = asyncio.create_task(sidecar.run())
        sidecar.wake()
        counted = sidecar.counts["cycles"]
        for number in range(TURNS):
            say(sidecar, {"type": "agent.activity_started", "agent": f"a{number}", "for": 3.0})
            await asyncio.sleep(0)
        # What was said before the first cycle may be in it.
        assert sidecar.counts["cycles"] - counted <= 1
        for kind in ("agent.woken", "invocation.started", "invocation.finished"):
            counted = sidecar.counts["cycles"]
            say(sidecar, {"type": kind, "agent": "a0"})
            for _ in range(TURNS):
                await asyncio.sleep(0)
            assert sidecar.counts["cycles"] == counted + 1, kind
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(body())
    sidecar.library.close()


def test_what_is_gathered_is_cycled_for_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "TICK_SECONDS", 60.0)
    sidecar = still_sidecar(tmp_path)
    open_stream(sidecar)

    async def body() -> None:
        running = asyncio.create_task(sidecar.run())
        say(sidecar, {"type": "agent.activity_started", "agent": "a", "for": 3.0})
        async with asyncio.timeout(10):
            while not sidecar.counts["cycles"]:  # noqa: ASYNC110  # a cycle tells nobody
                await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(body())
    assert not sidecar.population.take_changes().dues
    sidecar.library.close()
