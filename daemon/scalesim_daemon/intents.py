"""What operators decided, in Redis: written at once, read at boot, never expired by Redis itself. What Redis doesn't
take is kept, and written when it answers again.

`ss:intent` is a hash with a field `pin:<simulation>/<agent>` (the wall time in seconds until which it holds)
for each pin, `mode`, and `kept`, by which who reads it knows that Redis hasn't lost it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from itertools import chain
from time import time
from typing import cast

from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from scalesim_daemon.redis_client import AWAY, open_client
from scalesim_daemon.settings import RunMode

INTENT_KEY = "ss:intent"
PIN = "pin:"
KEPT = "kept"

# KEYS: the hash. ARGV: the field that says it is kept, and all fields with their values.
_RESTATE = """
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
  for i = 1, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
"""


class StoreUnavailable(Exception):
    """Redis didn't take or give an intent; whether a write had an effect is unknown, and it is still to be written."""


class Intents:
    """Pins and the run mode. Calls raise `StoreUnavailable` where Redis doesn't answer in a few seconds."""

    def __init__(self, url: str, *, cluster: bool = False) -> None:
        retry = Retry(ExponentialBackoff(cap=0.5, base=0.05), 3)
        self._client = open_client(url, cluster=cluster, retry=retry, connect_seconds=1, answer_seconds=2)
        self._restate = self._client.register_script(_RESTATE)
        self.said = 0
        """How often something was said here: what was read before is older."""
        self._unwritten: dict[str, str | None] = {}
        self._writing = asyncio.Lock()
        self._turn = asyncio.Lock()

    async def pin(self, key: str, until: float, over: Iterable[str] = ()) -> None:
        """Pin an agent until a wall time, and forget pins that are over."""
        await self._set({PIN + other: None for other in over} | {PIN + key: repr(until)})

    async def pin_again(self, pins: Mapping[str, float]) -> None:
        """Write pins that Redis has lost."""
        await self._set({PIN + key: repr(until) for key, until in pins.items()})

    async def unpin(self, key: str) -> None:
        """End a pin; none is needed."""
        await self._set({PIN + key: None})

    async def pins(self) -> dict[str, float]:
        """Return the pins that hold, with the wall time of their end; forget those that don't."""
        async with self._asking():
            return await self._pins(await self._fields())

    async def decided(self) -> tuple[dict[str, float], RunMode | None] | None:
        """Return the pins and the mode as of one look; None where Redis has lost what it had, or never had any."""
        async with self._asking():
            fields = await self._fields()
            return (await self._pins(fields), _mode(fields.get("mode"))) if KEPT in fields else None

    async def _fields(self) -> dict[str, str]:
        return cast(dict[str, str], await self._client.hgetall(INTENT_KEY))

    async def _pins(self, fields: Mapping[str, str]) -> dict[str, float]:
        untils = {field: _seconds(value) for field, value in fields.items() if field.startswith(PIN)}
        now = time()
        over = [field for field, until in untils.items() if until <= now]
        if over:
            await self._client.hdel(INTENT_KEY, *over)
        return {field.removeprefix(PIN): until for field, until in untils.items() if until > now}

    async def set_mode(self, mode: RunMode | None) -> None:
        """Keep the operator's mode, which then overrides the configured one; None overrides it no longer."""
        await self._set({"mode": None if mode is None else mode.value})

    async def mode(self) -> RunMode | None:
        """Return the operator's mode, None where none was set."""
        async with self._asking():
            return _mode((await self._fields()).get("mode"))

    async def eviction_warning(self) -> str | None:
        """Return why this Redis may evict intents, and the remedy; None where it doesn't."""
        async with self._asking():
            memory = await self._client.info("memory")
        policy = memory.get("maxmemory_policy", "")
        if not policy.startswith("allkeys-"):
            return None
        return (
            f"Redis has maxmemory-policy {policy}, which evicts pins and the operator's mode when memory "
            "is full: set it to noeviction or to one of volatile-*"
        )

    async def catch_up(self) -> None:
        """Write what Redis didn't take so far, of each field what was said last."""
        async with self._writing:
            while self._unwritten:
                field, value = next(iter(self._unwritten.items()))
                async with self._asking():
                    if value is None:
                        await self._client.hdel(INTENT_KEY, field)
                    else:
                        await self._client.hset(INTENT_KEY, field, value)
                # Something else may have been said meanwhile.
                if self._unwritten[field] == value:
                    del self._unwritten[field]

    async def restate(self, pins: Mapping[str, float], mode: RunMode | None) -> None:
        """Redis has lost what it had, or never had any: write what holds, unless another daemon has done so."""
        fields = {PIN + key: repr(until) for key, until in pins.items()} | (
            {"mode": mode.value} if mode else {}
        )
        async with self._asking():
            await self._restate(keys=[INTENT_KEY], args=[KEPT, "1", *chain.from_iterable(fields.items())])

    async def _set(self, fields: Mapping[str, str | None]) -> None:
        self.said += 1
        self._unwritten.update(fields)
        await self.catch_up()
        self.said += 1

    @asynccontextmanager
    async def _asking(self) -> AsyncIterator[None]:
        """Ask one thing at a time: a client of a cluster that several use fails oddly when a server goes away."""
        async with self._turn:
            try:
                yield
            except AWAY as error:
                raise StoreUnavailable(f"Redis does not answer: {error}") from error

    async def close(self) -> None:
        """Close the connection."""
        await self._client.aclose()


def _mode(value: str | None) -> RunMode | None:
    return RunMode(value) if value in list(RunMode) else None


def _seconds(value: str) -> float:
    """Return a stored wall time; what is no number is long over."""
    try:
        return float(value)
    except ValueError:
        return 0.0
