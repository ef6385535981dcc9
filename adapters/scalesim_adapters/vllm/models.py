"""Whole models of one vLLM server: put to sleep and woken by the routes of its developer mode, and exchanged for
other weights of the same architecture by our plug-in.

Asleep at level 1 an engine keeps its weights in host memory, at level 2 nowhere; its KV is gone at both, and requests
wait until it is woken. vLLM's CPU build goes through all of this and frees nothing.
"""

from __future__ import annotations

from time import monotonic

from scalesim_adapters.base import (
    Busy,
    ModelItem,
    NotFound,
    Outcome,
    ProtocolMismatch,
    Tier,
    Unsupported,
)
from scalesim_adapters.http import Http
from scalesim_adapters.openai.routes import ASK_SECONDS
from scalesim_adapters.vllm import metrics
from scalesim_adapters.vllm.routes import PluginRoutes

LEVELS = {Tier.HOST: 1, Tier.STORAGE: 2}


class Models:
    """Wakes, puts to sleep and exchanges the one model that a vLLM process serves."""

    def __init__(self, http: Http, routes: PluginRoutes) -> None:
        self._http = http
        self._routes = routes

    async def asleep(self) -> bool | None:
        """Return whether the model sleeps; None where the server has no such routes."""
        try:
            answer = await self._http.json("GET", "/is_sleeping", deadline=ASK_SECONDS)
        except (Unsupported, NotFound):
            return None
        asleep = answer.get("is_sleeping") if isinstance(answer, dict) else None
        if not isinstance(asleep, bool):
            raise ProtocolMismatch(f"/is_sleeping answered {answer!r}")
        return asleep

    async def load(self, item: ModelItem, deadline: float) -> Outcome:
        """Wake the model, and exchange its weights where the item names others."""
        started = monotonic()
        if await self.asleep():
            await self._wake(deadline)
        if item.path is not None:
            await self._routes.swap(item.path, deadline)
        return Outcome(monotonic() - started)

    async def evict(self, to: Tier, deadline: float) -> Outcome:
        """Put the model to sleep, where no request runs or waits: to sleep ends all that do."""
        if to not in LEVELS:
            raise Unsupported(f"a model sleeps in host memory or on storage, not in {to}")
        started = monotonic()
        if await self.asleep():
            return Outcome(monotonic() - started)
        requests = await self._requests()
        if requests:
            raise Busy(f"{requests} requests run or wait: the model stays awake")
        # A request that comes in this moment is waited for.
        await self._http.send("POST", f"/sleep?level={LEVELS[to]}&mode=wait", deadline=deadline)
        return Outcome(monotonic() - started)

    async def _wake(self, deadline: float) -> None:
        """Wake everything at once, or after level 2 the weights first, which are then read anew: nothing is computed
        before the rest is awake too."""
        samples = metrics.parse(await self._http.text("/metrics", deadline=ASK_SECONDS))
        if not metrics.weights_discarded(samples):
            await self._http.send("POST", "/wake_up", deadline=deadline)
            return
        await self._http.send("POST", "/wake_up?tags=weights", deadline=deadline)
        await self._http.send("POST", "/collective_rpc", {"method": "reload_weights"}, deadline=deadline)
        await self._http.send("POST", "/wake_up?tags=kv_cache", deadline=deadline)

    async def _requests(self) -> int:
        """Count those that run or wait. The server's counters lag behind its engine, which the plug-in asks: the first
        one where there are several (data parallelism)."""
        inside = await self._routes.state(ASK_SECONDS)
        if inside is not None:
            return inside.requests
        pressure = metrics.pressure(metrics.parse(await self._http.text("/metrics", deadline=ASK_SECONDS)))
        return pressure.running + pressure.waiting
