"""Plan what moves in a prefix cache whose engine evicts the blocks that were released longest ago. Pure.

The nearest agents are served first. A load goes only where blocks are free or belong to something farther, by more
than the exchange takes, and only if it is likely to pay; what is nearer and would be evicted first is touched
beforehand. Where that can't be had, the plan ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.plan import Action, BlockCache, Lot, Step, Wish
from scalesim_daemon.swaps import pays, yields

MAX_STEPS = 64


def plan_blocks(cache: BlockCache) -> list[Step]:
    """Return the steps, in order, that bring and keep the nearest agents' prefixes on the device."""
    queue = _Queue(cache)
    steps: list[Step] = []
    wishes = sorted((w for w in cache.wishes if w.seconds < math.inf and not w.held), key=lambda w: w.seconds)
    for wish in wishes:
        # What comes after the next invocations leaves room for these, so as not to be their victim.
        reserve = cache.reserve if wish.seconds > wishes[0].seconds else 0
        if wish.agent in queue.robbed:
            return steps
        start = wish.resident
        while start < wish.blocks:
            stop = min(start + cache.chunk, wish.blocks)
            if not pays(wish.chance, stop - start, queue.lost(stop - start), cache.price):
                break
            touches = queue.room(wish, stop - start, reserve)
            if touches is None or len(steps) + len(touches) >= MAX_STEPS:
                return steps
            steps += queue.touch(touches)
            steps.append(queue.load(wish, start, stop))
            start = stop
    return steps


@dataclass(slots=True, eq=False)
class _Entry:
    lot: Lot
    blocks: int


class _Queue:
    """The eviction order, as it develops while the plan is carried out. What the agents that were `robbed` on
    the way still have is for the next snapshot to tell: a load takes less than was thought where another agent's,
    just before, has brought blocks that both begin with. So the entries of the robbed stay in the order, with no
    blocks to count on."""

    def __init__(self, cache: BlockCache) -> None:
        self.robbed: set[str] = set()
        self._loaded: set[str] = set()
        self._free = cache.free
        self._overhead = cache.overhead
        self._block_seconds = cache.block_seconds
        self._entries = [_Entry(lot, lot.blocks) for lot in cache.lots]
        self._seconds = {wish.agent: wish.seconds for wish in cache.wishes}
        self._resident = {wish.agent: wish.resident for wish in cache.wishes if wish.resident}

    def room(self, wish: Wish, new: int, reserve: int) -> list[_Entry] | None:
        """Find out what must be touched so that all victims give way to the wish, if its request takes so many `new`
        blocks and `reserve` blocks are left besides; None where there aren't as many. Blocks of its own are no
        victims: its request uses them."""
        found, blocks = self._free, new + self._overhead + reserve
        touches: list[_Entry] = []
        for entry in self._entries:
            if found >= blocks:
                break
            if wish.agent in entry.lot.agents:
                continue
            if yields(entry.lot.seconds, wish.seconds, new * self._block_seconds):
                found += entry.blocks
            elif self._toucher(entry.lot) is None:
                return None
            else:
                touches.append(entry)
        # A touch is a request too: without a free block it would evict what it is to save.
        possible = found >= blocks and (not touches or self._free >= self._overhead)
        return touches if possible else None

    def lost(self, new: int) -> int:
        """Return how many blocks others have less because of a load. Where it takes what nobody will ask for, the
        next calls take theirs."""
        return max(0, new + self._overhead - self._free)

    def touch(self, entries: list[_Entry]) -> list[Step]:
        """Carry out touches, the nearest last, and return them as steps."""
        steps: dict[str, Step] = {}
        for entry in sorted(entries, key=lambda entry: -entry.lot.seconds):
            agent = self._toucher(entry.lot)
            if agent is None or agent in steps:
                continue
            reason = "nearer than what should go first"
            stop, seconds = self._resident[agent], self._seconds[agent]
            steps[agent] = Step(Action.TOUCH, MemoryKind.PREFIX_KV, agent, 0, stop, seconds, reason)
            self._use(agent)
        return list(steps.values())

    def load(self, wish: Wish, start: int, stop: int) -> Step:
        """Carry out a load for which there is room, and return it as a step."""
        self._use(wish.agent)
        victims = self._take(stop - start)
        self._loaded.add(wish.agent)
        if len(self._loaded) == 1:
            self._entries = [entry for entry in self._entries if entry.blocks]
        self._resident[wish.agent] = stop
        reason = "takes blocks of agents due later" if victims else "takes blocks that nobody will ask for"
        return Step(Action.LOAD, MemoryKind.PREFIX_KV, wish.agent, start, stop, wish.seconds, reason, victims)

    def _toucher(self, lot: Lot) -> str | None:
        """Return the nearest agent whose prefix, where it is touched, takes the lot along."""
        return next(
            (agent for agent in lot.agents if agent in self._resident and agent not in self.robbed), None
        )

    def _use(self, agent: str) -> None:
        """What a request has used goes to the back, out of reach of later steps: these serve farther ones."""
        self._entries = [entry for entry in self._entries if agent not in entry.lot.agents]

    def _take(self, blocks: int) -> tuple[str, ...]:
        """Let a request for `blocks` new blocks take them; return the agents that lose some."""
        wanted = blocks + self._overhead - self._free
        self._free = self._overhead + max(0, -wanted)
        victims: dict[str, None] = {}
        for entry in self._entries:
            if wanted <= 0:
                break
            taken = min(entry.blocks, wanted)
            entry.blocks -= taken
            wanted -= taken
            victims.update(dict.fromkeys(entry.lot.agents))
        self.robbed |= victims.keys()
        return tuple(victims)
