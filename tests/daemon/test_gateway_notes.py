"""When the sidecar is told of the calls that the gateway sees."""

from __future__ import annotations

import asyncio

import pytest

from scalesim_daemon.gateway.app import Gateway
from scalesim_daemon.gateway.notes import Notes
from scalesim_daemon.loop import Sidecar


def test_a_clock_that_goes_on_keeps_no_work_from_engines(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scalesim_daemon.gateway.notes.TICK_SECONDS", 0.0)

    async def scene() -> None:
        notes = Notes(sidecar)
        notes.finished(notes.started("sim/rosa"))
        assert sidecar.strangers == 1
        notes.tell()
        before = sidecar.counts["messages"]
        going_on = asyncio.create_task(notes.run())
        while sidecar.counts["messages"] < before + 3:
            await asyncio.sleep(0)
            assert sidecar.strangers == 0
        going_on.cancel()

    asyncio.run(scene())


def test_a_gateway_that_ends_tells_of_its_last_calls(sidecar: Sidecar) -> None:
    async def scene() -> None:
        gateway = Gateway(sidecar)
        gateway._notes.finished(gateway._notes.started("sim/rosa"))
        await gateway.close()
        assert sidecar.population.agents["sim/rosa"].invocations == 1

    asyncio.run(scene())
