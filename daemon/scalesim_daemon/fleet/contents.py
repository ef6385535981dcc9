"""Prefixes of agents that other daemons hear: asked for when they are near, of the daemon that has them."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import Sequence
from time import monotonic

import msgspec
import structlog

from scalesim_daemon.fleet.population import SharedPopulation
from scalesim_daemon.fleet.shelf import Shelf
from scalesim_daemon.redis_client import heed

ASKED_AT_ONCE = 64
LOOK_SECONDS = 1.0
# To look whose prefix is near costs what is lacking: it takes no more than this share of the time.
SHARE = 0.05
ASK_AGAIN_SECONDS = 1.0

log = structlog.get_logger(__name__)


class Contents:
    """Brings what is lacking, the nearest first, and what others want of what is heard here."""

    def __init__(self, shelf: Shelf, population: SharedPopulation) -> None:
        self._shelf = shelf
        self._population = population
        self._asked: dict[str, float] = {}
        self._wanted: dict[str, None] = {}
        self._heard = asyncio.Event()

    def wanted(self, daemon: str, hashes: Sequence[str]) -> None:
        """A daemon is asked for contents."""
        if daemon == self._population.daemon:
            self._wanted.update(dict.fromkeys(hashes))
            self._heard.set()

    def look(self) -> None:
        """Contents have come, or are needed."""
        self._heard.set()

    async def run(self) -> None:
        """Ask and answer until cancelled. Raises one of `AWAY` where Redis doesn't answer."""
        while True:
            heed()
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._heard.wait()
            except TimeoutError:
                pass
            self._heard.clear()
            await self._answer()
            began = monotonic()
            near = self._near()
            rest = (monotonic() - began) * (1 / SHARE - 1)
            await self._bring(near)
            await asyncio.sleep(rest)

    async def _answer(self) -> None:
        brought = []
        while self._wanted:
            name = next(iter(self._wanted))
            content = self._population.content(name)
            if content is not None:
                await self._shelf.bring(name, content)
                brought.append(name)
            self._wanted.pop(name, None)
        if brought:
            await self._shelf.ring("brought", *brought)

    def _near(self) -> list[str]:
        """Return the nearest agents whose prefix is lacking; not those of whom no call is foreseen."""
        lacking, seconds = self._population.lacking, self._population.board.seconds
        nearest = heapq.nsmallest(ASKED_AT_ONCE, lacking, key=seconds)
        return [key for key in nearest if seconds(key) < math.inf]

    async def _bring(self, near: Sequence[str]) -> None:
        """Fetch what is there of what is near, and ask for the rest."""
        lacking, now = self._population.lacking, monotonic()
        self._asked = {name: at for name, at in self._asked.items() if now - at < ASK_AGAIN_SECONDS}
        sought: dict[str, list[str]] = {}
        for key in near:
            sought.setdefault(lacking[key], []).append(key)
        missing: dict[str, list[str]] = {}
        for name, keys in sought.items():
            content = await self._shelf.fetch(name)
            if content is None:
                missing.setdefault(self._population.teller(keys[0]), []).append(name)
                continue
            for key in keys:
                if lacking.get(key) == name:
                    self._take(key, content)
        for daemon, names in missing.items():
            news = [name for name in names if name not in self._asked]
            if news:
                self._asked.update(dict.fromkeys(news, now))
                await self._shelf.ring("wanted", daemon, *news)

    def _take(self, key: str, content: bytes) -> None:
        try:
            self._population.brought(key, content)
        except (ValueError, TypeError, msgspec.MsgspecError) as error:
            log.warning("prefix not taken", agent=key, error=str(error))
            self._population.lacking.pop(key, None)
