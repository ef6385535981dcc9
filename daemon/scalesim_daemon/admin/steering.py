"""What operators decide for longer than a moment: the run mode, and pins by lease. It holds at once, and Redis keeps it
for the next start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import time
from typing import TYPE_CHECKING

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


def switch_mode(sidecar: Sidecar, mode: RunMode) -> None:
    """Let a mode hold from now on."""
    sidecar.mode = mode
    if mode is not RunMode.ACTIVE:
        for driver in sidecar.drivers.values():
            driver.cancel(f"the mode is {mode}")
    sidecar.wake()


class Steering:
    """Sets mode and pins. Each call returns why what it set is not kept beyond the daemon's end, None where it is: an
    operator's word holds while Redis is away, too."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar

    async def set_mode(self, mode: RunMode) -> str | None:
        """Act, observe or pause from now on. What is being prefetched is let go where nothing is to be moved."""
        sidecar = self._sidecar
        switch_mode(sidecar, mode)
        # To act again, as configured, overrides nothing: a later start with another mode, say --mode observe, has that.
        as_ever = mode is RunMode.ACTIVE and sidecar.settings.mode is mode
        return await self._keep(lambda intents: intents.set_mode(None if as_ever else mode))

    async def pin(self, key: str, seconds: float) -> tuple[float, str | None]:
        """Keep an agent's memory where it is needed until a wall time, which is returned. Raises `UnknownAgent` and
        `TooMany`."""
        check_known(self._sidecar, key)
        now, pins = time(), self._sidecar.pins
        over = [agent for agent, until in pins.items() if until <= now]
        for agent in over:
            del pins[agent]
        if key not in pins and len(pins) >= MOST_PINS:
            raise TooMany(f"{MOST_PINS} agents are pinned: unpin some, or wait until their leases end")
        until = pins[key] = now + seconds
        log.info("pinned", agent=key, seconds=seconds)
        self._sidecar.wake()
        return until, await self._keep(lambda intents: intents.pin(key, until, over))

    async def unpin(self, key: str) -> str | None:
        """End a pin; none is needed."""
        if self._sidecar.pins.pop(key, None) is not None:
            log.info("unpinned", agent=key)
            self._sidecar.wake()
        return await self._keep(lambda intents: intents.unpin(key))

    async def _keep(self, write: Callable[[Intents], Awaitable[None]]) -> str | None:
        if self._sidecar.intents is None:
            return NO_REDIS
        from scalesim_daemon.intents import StoreUnavailable

        try:
            await write(self._sidecar.intents)
        except StoreUnavailable as error:
            log.warning("an operator's word is not kept yet", error=str(error))
            return f"it holds, and is kept as soon as Redis answers; until then a restart forgets it: {error}"
        return None
