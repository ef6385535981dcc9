"""What operators decide for longer than a moment: the run mode, and pins by lease. It holds at once, and Redis keeps it
for the next start."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from time import time
from typing import TYPE_CHECKING, Any

import structlog

from scalesim_daemon.loop import Sidecar
from scalesim_daemon.report_agents import check_known
from scalesim_daemon.settings import RunMode

if TYPE_CHECKING:  # Where nothing is kept in Redis its client isn't loaded.
    from scalesim_daemon.intents import Intents

MOST_PINS = 10_000
NO_REDIS = "there is no Redis to keep it (redis.enabled): it is forgotten when the daemon ends"

log = structlog.get_logger(__name__)


class TooMany(Exception):
    """No more of these are kept at a time."""


class Steering:
    """Sets mode and pins. Each call returns why what it set is not kept beyond the daemon's end, None where it is: an
    operator's word holds while Redis is away, too."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._writing = asyncio.Lock()

    async def set_mode(self, mode: RunMode) -> str | None:
        """Act, observe or pause from now on. What is being prefetched is let go where nothing is to be moved."""
        sidecar = self._sidecar
        sidecar.mode = mode
        if mode is not RunMode.ACTIVE:
            for driver in sidecar.drivers.values():
                driver.cancel(f"the mode is {mode}")
        sidecar.wake()
        # Of two calls at a time the later one is written last: what holds then is written.
        return await self._keep(lambda intents: intents.set_mode(sidecar.mode))

    async def pin(self, key: str, seconds: float) -> tuple[float, str | None]:
        """Keep an agent's memory where it is needed until a wall time, which is returned. Raises `UnknownAgent` and
        `TooMany`."""
        check_known(self._sidecar, key)
        now, pins = time(), self._sidecar.pins
        for over in [agent for agent, until in pins.items() if until <= now]:
            del pins[over]
        if key not in pins and len(pins) >= MOST_PINS:
            raise TooMany(f"{MOST_PINS} agents are pinned: unpin some, or wait until their leases end")
        until = pins[key] = now + seconds
        log.info("pinned", agent=key, seconds=seconds)
        self._sidecar.wake()
        return until, await self._keep(lambda intents: self._write_pin(intents, key))

    async def unpin(self, key: str) -> str | None:
        """End a pin; none is needed."""
        if self._sidecar.pins.pop(key, None) is not None:
            log.info("unpinned", agent=key)
            self._sidecar.wake()
        return await self._keep(lambda intents: self._write_pin(intents, key))

    def _write_pin(self, intents: Intents, key: str) -> Coroutine[Any, Any, None]:
        until = self._sidecar.pins.get(key)
        return intents.unpin(key) if until is None else intents.pin(key, until)

    async def _keep(self, write: Any) -> str | None:
        if self._sidecar.intents is None:
            return NO_REDIS
        from scalesim_daemon.intents import StoreUnavailable

        try:
            async with self._writing:
                await write(self._sidecar.intents)
        except StoreUnavailable as error:
            log.warning("an operator's word is not kept", error=str(error))
            return f"it holds, and may be forgotten when the daemon ends: {error}"
        return None
