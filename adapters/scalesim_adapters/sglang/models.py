"""The model of one SGLang server, put to sleep and woken: its memory is released and resumed.

Stock routes would end the server where a request runs. So they are used only where our plug-in guards them, which also
keeps requests that come while the model sleeps waiting until it is woken. What was cached on the device is gone then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from time import monotonic

from scalesim_adapters.base import Busy, CapacityExceeded, ModelItem, Outcome, Tier, Unsupported
from scalesim_adapters.http import Http
from scalesim_adapters.sglang.probe import Server

RELEASE = "/release_memory_occupation"
RESUME = "/resume_memory_occupation"
GUARD = "SCALESIM_DUES in the server's environment: without our plug-in a release ends a server with requests"


class Models:
    """Wakes and puts to sleep the one model that an SGLang process serves. `ask` returns what the server says of
    itself now."""

    def __init__(self, http: Http, ask: Callable[[], Awaitable[Server]]) -> None:
        self._http = http
        self._ask = ask

    async def load(self, item: ModelItem, deadline: float) -> Outcome:
        """Wake the model."""
        if item.path is not None:
            raise Unsupported("SGLang's weights are those that it was started with")
        started = monotonic()
        if await self._asleep():
            await self._http.send("POST", RESUME, {}, deadline=deadline)
            if await self._asleep():
                raise CapacityExceeded("the server's memory isn't back yet")
        return Outcome(monotonic() - started)

    async def evict(self, to: Tier, deadline: float) -> Outcome:
        """Put the model to sleep, where no request runs or waits."""
        if to is not Tier.HOST:
            raise Unsupported(f"a model sleeps in host memory, not in {to}")
        started = monotonic()
        if not await self._asleep():
            await self._http.send("POST", RELEASE, {}, deadline=deadline)
            if not await self._asleep():
                raise Busy("requests run or wait: the model stays awake")
        return Outcome(monotonic() - started)

    async def _asleep(self) -> bool:
        plugin = (await self._ask()).plugin
        if plugin is None:
            raise Unsupported(GUARD)
        return plugin.asleep
