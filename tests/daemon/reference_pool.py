"""vLLM's block pool once more, as simple as possible, to judge what the daemon makes of its events."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from scalesim_adapters.base import Removed, ResidencyEvent, Stored, Tier
from scalesim_daemon.blocks import Namespace

Chain = tuple[Namespace, tuple[int, ...]]


@dataclass(eq=False)
class Slot:
    """One block of the pool; `chain` is its content with all before it, None where it can't be hit."""

    chain: Chain | None = None
    uses: int = 0


@dataclass(eq=False)
class Request:
    agent: str | None
    slots: list[Slot]
    hits: int


@dataclass
class Pool:
    """`queue` is the free queue, the next to be taken first. What happens is appended to `events`."""

    capacity: int
    block_size: int = 2
    chunk: int = 1_000_000
    events: list[ResidencyEvent] = field(default_factory=list)
    queue: list[Slot] = field(init=False)
    slots: list[Slot] = field(init=False)
    found: dict[Chain, list[Slot]] = field(default_factory=dict)
    hashes: dict[Chain, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.slots = [Slot() for _ in range(self.capacity)]
        self.queue = list(self.slots)

    def chains(self, prompt: Sequence[int], namespace: Namespace = (None, None)) -> list[Chain]:
        size = self.block_size
        return [(namespace, tuple(prompt[: end + size])) for end in range(0, len(prompt) - size + 1, size)]

    def resident(self, chains: Sequence[Chain]) -> int:
        """How many of these blocks can be hit, from the first on."""
        return next((count for count, chain in enumerate(chains) if chain not in self.found), len(chains))

    def is_missed(self, slot: Slot) -> bool:
        """Whether this is the copy of its content that is hit, or the one that stays longest."""
        copies = self.found[slot.chain] if slot.chain is not None else []
        places = [self.queue.index(copy) if not copy.uses else math.inf for copy in copies]
        return slot is copies[0] or max(places) == self.queue.index(slot)

    def can_begin(self, prompt: Sequence[int], namespace: Namespace = (None, None)) -> bool:
        hits, new = self._needs(prompt, namespace)
        return new <= len([slot for slot in self.queue if slot not in hits])

    def begin(self, agent: str | None, prompt: Sequence[int], namespace: Namespace = (None, None)) -> Request:
        """Serve a prompt (its answer included) up to its end, with all its blocks in use."""
        chains = self.chains(prompt, namespace)
        hits, new = self._needs(prompt, namespace)
        for slot in hits:
            if not slot.uses:
                self.queue.remove(slot)
            slot.uses += 1
        request = Request(agent, list(hits), len(hits))
        for _ in range(new):
            slot = self.queue.pop(0)
            self._forget(slot)
            slot.uses = 1
            request.slots.append(slot)
        for start in range(len(hits), len(chains), self.chunk):
            self._store(request, chains, start, min(start + self.chunk, len(chains)))
        return request

    def finish(self, request: Request) -> None:
        last, first = [], []
        for slot in reversed(request.slots):
            slot.uses -= 1
            if not slot.uses:
                (first if slot.chain is None else last).append(slot)
        self.queue = first + self.queue + last

    def serve(self, agent: str | None, prompt: Sequence[int], namespace: Namespace = (None, None)) -> Request:
        request = self.begin(agent, prompt, namespace)
        self.finish(request)
        return request

    def take_events(self) -> list[ResidencyEvent]:
        events, self.events = self.events, []
        return events

    def _needs(self, prompt: Sequence[int], namespace: Namespace) -> tuple[list[Slot], int]:
        usable = self.chains(prompt, namespace)[: (len(prompt) - 1) // self.block_size]
        hits = [self.found[chain][0] for chain in usable[: self.resident(usable)]]
        return hits, -(-len(prompt) // self.block_size) - len(hits)

    def _store(self, request: Request, chains: Sequence[Chain], start: int, stop: int) -> None:
        for slot, chain in zip(request.slots[start:stop], chains[start:stop], strict=True):
            slot.chain = chain
            self.found.setdefault(chain, []).append(slot)
            self.hashes.setdefault(chain, len(self.hashes) + 1)
        (lora, salt), tokens = chains[stop - 1]
        self.events.append(
            Stored(
                tuple(self.hashes[chain] for chain in chains[start:stop]),
                self.hashes[chains[start - 1]] if start else None,
                tokens[start * self.block_size :],
                self.block_size,
                Tier.DEVICE,
                request.agent,
                lora,
                salt if not start else None,
            )
        )

    def _forget(self, slot: Slot) -> None:
        if slot.chain is not None:
            copies = self.found[slot.chain]
            copies.remove(slot)
            if not copies:
                del self.found[slot.chain]
            self.events.append(Removed((self.hashes[slot.chain],), Tier.DEVICE))
            slot.chain = None
