"""What this daemon did on engines, in Redis: written under the token that it went by, and refused where another daemon
has held the engine since."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from itertools import groupby, islice
from typing import Any, NamedTuple

import structlog

from scalesim_daemon.fleet.lease_store import KEPT_DECISIONS, LeaseStore
from scalesim_daemon.fleet.mishaps import Mishaps
from scalesim_daemon.redis_client import AWAY, heed

CHUNK = 500
RETRY_SECONDS = 1.0

log = structlog.get_logger(__name__)


class _Done(NamedTuple):
    engine: str
    token: int
    record: Mapping[str, Any]


class DecisionLog:
    """Writes off the hot path, the oldest first. What Redis doesn't take is kept, `KEPT_DECISIONS` at most."""

    def __init__(self, store: LeaseStore, mishaps: Mishaps) -> None:
        self._store = store
        self._mishaps = mishaps
        self._waiting: deque[_Done] = deque(maxlen=KEPT_DECISIONS)
        self._more = asyncio.Event()

    def note(self, engine: str, token: int, record: Mapping[str, Any]) -> None:
        """Have a record written."""
        if len(self._waiting) == KEPT_DECISIONS:
            self._mishaps.lost(1)
        self._waiting.append(_Done(engine, token, record))
        self._more.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._more.wait()
            self._more.clear()
            while self._waiting:
                heed()
                try:
                    await self._write_some()
                except AWAY:
                    await asyncio.sleep(RETRY_SECONDS)

    async def flush(self) -> None:
        """Write what is waiting. Raises one of `AWAY` where Redis doesn't take it."""
        while self._waiting:
            await self._write_some()

    async def _write_some(self) -> None:
        if not await self._mishaps.survived("writing a decision", self._write()):
            self._mishaps.lost(1)
            self._waiting.popleft()

    async def _write(self) -> None:
        batch = list(islice(self._waiting, CHUNK))
        for (engine, token), group in groupby(batch, key=lambda one: (one.engine, one.token)):
            done = list(group)
            if not await self._store.decided(engine, token, [one.record for one in done]):
                log.info(
                    "not written: another daemon has the engine",
                    engine=engine,
                    token=token,
                    records=len(done),
                )
                self._mishaps.lost(len(done))
            for one in done:
                # Where too many came meanwhile the oldest are gone already.
                with suppress(ValueError):
                    self._waiting.remove(one)
