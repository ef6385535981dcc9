"""What the adapter contract's tests are written with: an engine to drive, and a listener to its events."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scalesim_adapters.base import (
    Capability,
    Cleared,
    EngineAdapter,
    PrefixItem,
    Removed,
    ResidencyEvent,
    Stored,
)

LONG = 30.0
BLOCK = 32
VOCABULARY = 4000


@dataclass(frozen=True)
class Subject:
    """One running engine: how to reach it and what it was started with. `loras` are folders, all different.

    `prefix`, `lora` and `model` are what it lets us do with each; `missing` is what it says it could let us do.
    A prefix goes `tail_first` where it is evicted block by block. `version` is how its version begins; sizes are None
    where it doesn't tell.
    """

    connect: Callable[[], EngineAdapter]
    base: str
    device_blocks: int | None
    max_model_len: int
    loras: tuple[Path, ...]
    kill: Callable[[], None]
    restart: Callable[[], None]
    engine: str = "vllm"
    version: str = "0."
    block_size: int | None = BLOCK
    prefix: Capability = Capability.LOAD | Capability.EVENTS | Capability.REPLAY
    lora: Capability = Capability.LOAD | Capability.LIST
    model: Capability = Capability.NONE
    missing: tuple[str, ...] = ()
    tail_first: bool = True


@dataclass
class Listener:
    """Everything that an adapter's events have said so far."""

    seen: list[ResidencyEvent] = field(default_factory=list)
    _news: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def listen(self, events: AsyncIterator[ResidencyEvent]) -> None:
        async for event in events:
            async with self._news:
                self.seen.append(event)
                self._news.notify_all()

    async def until(self, done: Callable[[], bool], within: float = LONG) -> None:
        """Wait until `done` holds of what was seen."""
        async with asyncio.timeout(within), self._news:
            await self._news.wait_for(done)

    async def stored_all(self, item: PrefixItem) -> None:
        """Wait until as many blocks as the item has were stored for its agent."""
        await self.until(lambda: len(self.hashes(item.agent)) * BLOCK == len(item.token_ids))

    def stored(self, agent: str) -> list[Stored]:
        return [event for event in self.seen if isinstance(event, Stored) and event.agent == agent]

    def hashes(self, agent: str) -> list[object]:
        return [block for event in self.stored(agent) for block in event.hashes]

    def removed(self) -> list[object]:
        return [block for event in self.seen if isinstance(event, Removed) for block in event.hashes]

    def cleared(self) -> int:
        return sum(isinstance(event, Cleared) for event in self.seen)


@asynccontextmanager
async def listening(adapter: EngineAdapter) -> AsyncIterator[Listener]:
    """Listen in the background until the block ends."""
    listener = Listener()
    task = asyncio.create_task(listener.listen(adapter.events()))
    try:
        yield listener
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def eventually(holds: Callable[[], Awaitable[bool]], within: float = LONG) -> None:
    """Ask again and again, an engine has no other way to tell, until it holds."""
    async with asyncio.timeout(within):
        while not await holds():
            pass


def run(subject: Subject, body: Callable[[EngineAdapter], Awaitable[None]]) -> None:
    """Run one test's body with an adapter of its own."""

    async def main() -> None:
        adapter = subject.connect()
        try:
            await body(adapter)
        finally:
            await adapter.close()

    asyncio.run(main())


def prefixes(subject: Subject, test: str) -> Iterator[PrefixItem]:
    """Yield prefixes of 8 blocks, of agents and tokens that no other test has."""
    rng = random.Random(f"{test} {subject.connect}")
    for number in range(1000):
        tokens = tuple(rng.randrange(10, VOCABULARY) for _ in range(8 * BLOCK))
        yield PrefixItem(f"{test}-{number}-{rng.randrange(10**9)}", subject.base, tokens)


def cut(item: PrefixItem, blocks: int) -> PrefixItem:
    """Return the first `blocks` blocks of an item."""
    return PrefixItem(item.agent, item.model, item.token_ids[: blocks * BLOCK], item.cache_salt)
