"""LoRAs whose names never come again are forgotten, once there are many: those that no agent has bound and no engine
has."""

from __future__ import annotations

import asyncio

import structlog

from scalesim_adapters.base import EngineError
from scalesim_daemon.loop import Sidecar

FORGET_SECONDS = 60.0

log = structlog.get_logger(__name__)


async def keep_loras_few(sidecar: Sidecar) -> None:
    """Forget again and again, until cancelled."""
    while True:
        await asyncio.sleep(FORGET_SECONDS)
        try:
            gone = await forget_unused(sidecar)
        except (EngineError, OSError) as error:
            # An engine that doesn't say what it has may load by any link.
            log.debug("no LoRA forgotten", error=str(error))
        else:
            if gone:
                log.info("LoRAs forgotten", links=gone)


async def forget_unused(sidecar: Sidecar) -> int:
    """Forget what no agent has bound and no engine here has; return how many that are. Raises `EngineError` and
    `OSError`, and then what was to go goes the next time."""
    if not sidecar.library.crowded:
        return 0
    here = (driver for driver in sidecar.drivers.values() if not driver.view.standby)
    had = [path for driver in here for path in (await driver.adapter.inventory()).loras.values()]
    return await asyncio.to_thread(sidecar.library.forget, set(sidecar.population.memories.loras), set(had))
