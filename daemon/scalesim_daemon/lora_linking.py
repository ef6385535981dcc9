"""Has LoRAs linked that agents bind: their files are looked at by a thread, which may take a while."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import structlog

from scalesim_daemon.loras import LoraError, LoraLibrary

# A path is as long as a simulation likes, and so is a list of LoRAs that lie nowhere.
LONGEST_ERROR = 1000
MOST_NOT_TAKEN = 1000

log = structlog.get_logger(__name__)


class Linking:
    """Links LoRAs in a library, and says when one is `done`, whatever came of it."""

    def __init__(self, library: LoraLibrary, done: Callable[[], None]) -> None:
        self.not_taken: dict[str, str] = {}
        """Per LoRA that couldn't be linked why."""
        self.under_way: Counter[str] = Counter()
        """LoRAs that are being linked, by how many have bound them meanwhile."""
        self._library = library
        self._done = done
        self._tasks: set[asyncio.Task[None]] = set()

    def make(self, agent: str, name: str, original: Path) -> None:
        """Have the LoRA linked that an agent has bound."""
        self.under_way[name] += 1
        task = asyncio.get_running_loop().create_task(self._make(agent, name, original))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _make(self, agent: str, name: str, original: Path) -> None:
        try:
            await asyncio.to_thread(self._library.link, name, original)
        except (LoraError, OSError) as error:
            # A simulation binds it anew with every snapshot.
            why = str(error)[:LONGEST_ERROR]
            if self.not_taken.pop(name, None) != why:
                log.warning("LoRA not taken", agent=agent, lora=name, error=why)
            self.not_taken[name] = why
            if len(self.not_taken) > MOST_NOT_TAKEN:
                del self.not_taken[next(iter(self.not_taken))]
        else:
            self.not_taken.pop(name, None)
        self._done()
        self.under_way -= Counter([name])
