"""A second listener of an engine's KV events, with a bookkeeping of its own to compare the daemon's view with."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import httpx

from scalesim_adapters.base import BlockHash, Cleared, FeedLost, Removed, ResidencyEvent, Stored
from scalesim_adapters.vllm.adapter import VllmAdapter
from tests.adapters.contract import BLOCK
from tests.daemon.live import resident, until


class Witness:
    """Counts the copies of each block, and knows a block by its parent and its tokens."""

    def __init__(self) -> None:
        self._copies: Counter[BlockHash] = Counter()
        self._names: dict[tuple[BlockHash | None, tuple[int, ...]], BlockHash] = {}

    @property
    def resident(self) -> int:
        """How many blocks hold something."""
        return self._copies.total()

    def head(self, token_ids: Sequence[int]) -> int:
        """Return how many blocks at the head of a base model's prompt are resident without a hole."""
        parent: BlockHash | None = None
        for count in range(len(token_ids) // BLOCK):
            name = self._names.get((parent, tuple(token_ids[count * BLOCK : (count + 1) * BLOCK])))
            if name is None or not self._copies[name]:
                return count
            parent = name
        return len(token_ids) // BLOCK

    async def listen(self, events: AsyncIterator[ResidencyEvent]) -> None:
        """Take events in until cancelled."""
        async for event in events:
            self._hear(event)

    def _hear(self, event: ResidencyEvent) -> None:
        match event:
            case Stored():
                self._copies.update(event.hashes)
                if event.lora_name is None and event.cache_salt is None:
                    parent = event.parent
                    for number, name in enumerate(event.hashes):
                        block = event.token_ids[number * BLOCK : (number + 1) * BLOCK]
                        self._names[parent, tuple(block)] = name
                        parent = name
            case Removed():
                self._copies.subtract(event.hashes)
            case Cleared():
                self._copies.clear()
            case FeedLost(reason):
                raise AssertionError(f"the engine's feed has a gap: {reason}")


@asynccontextmanager
async def witnessing(engine_url: str) -> AsyncIterator[Witness]:
    """Replay and follow an engine's feed until the block ends."""
    witness, adapter = Witness(), VllmAdapter(engine_url, name="witness")
    task = asyncio.create_task(witness.listen(adapter.events()))
    try:
        yield witness
        assert not task.done() or task.exception() is None
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await adapter.close()


async def daemon_sees_what_the_engine_holds(
    engine_url: str, api: httpx.AsyncClient, simulation: str, prefixes: Mapping[str, Sequence[int]]
) -> None:
    """Wait until the daemon, at rest, tells of every agent's prefix, and of all blocks, what a fresh replay of
    the engine's feed tells."""
    async with witnessing(engine_url) as witness:

        async def agree() -> bool:
            (engine,) = (await api.get("/v1/engines")).json()["engines"]
            (plan,) = (await api.get("/v1/plan")).json()["engines"]
            if not engine["known"] or plan["in_flight"] or engine["blocks"]["resident"] != witness.resident:
                return False
            said = {agent: await resident(api, f"{simulation}/{agent}") for agent in prefixes}
            return any(said.values()) and said == {
                agent: witness.head(ids) for agent, ids in prefixes.items()
            }

        await until(agree)
