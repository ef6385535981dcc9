"""Plan what moves in a prefix cache whose engine evicts the blocks that were released longest ago. Pure.

The nearest agents are served first. A load goes only where blocks are free or belong to something farther, by more
than the exchange takes, and only if it is likely to pay; what is nearer and would be evicted first is touched
beforehand. Where that can't be had, the plan ends.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.plan import Action, BlockCache, Lot, Step, Wish
from scalesim_daemon.swaps import bar, pays
from scalesim_daemon.wishes import Place, Wishes

MAX_STEPS = 64


def plan_blocks(cache: BlockCache) -> list[Step]:
    """Return the steps, in order, that bring and keep the nearest agents' prefixes on the device."""
    wishes = cache.wishes if isinstance(cache.wishes, Wishes) else Wishes(cache.wishes)
    queue = _Queue(cache, wishes)
    nearest = wishes.nearest
    steps: list[Step] = []
    for wish in wishes.lacking():
        # What comes after the next invocations leaves room for these, so as not to be their victim.
        reserve = cache.reserve if wish.seconds > nearest else 0
        if queue.ends is not None and wishes.place(wish.agent) >= queue.ends:
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

    def __init__(self, cache: BlockCache, wishes: Wishes) -> None:
        self.robbed: set[str] = set()
        self.ends: Place | None = None
        """The place of the nearest of the robbed: who isn't nearer waits for the next snapshot."""
        self._wishes = wishes
        self._wish_of = lru_cache(None)(wishes.of)
        self._loaded: dict[str, int] = {}
        self._used: set[str] = set()
        self._free = cache.free
        self._overhead = cache.overhead
        self._block_seconds = cache.block_seconds
        self._lots = iter(cache.lots)
        self._entries: list[_Entry] = []

    def room(self, wish: Wish, new: int, reserve: int) -> list[_Entry] | None:
        """Find out what must be touched so that all victims give way to the wish, if its request takes so many `new`
        blocks and `reserve` blocks are left besides; None where there aren't as many. Blocks of its own are no
        victims: its request uses them."""
        found, blocks = self._free, new + self._overhead + reserve
        beyond = bar(wish.seconds, new * self._block_seconds)
        touches: list[_Entry] = []
        for entry in self._order():
            if found >= blocks or len(touches) > MAX_STEPS:
                break
            if wish.agent in entry.lot.agents:
                continue
            if entry.lot.seconds > beyond:
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
            wish, stop = self._wish_of(agent), self._resident(agent)
            assert wish is not None
            steps[agent] = Step(Action.TOUCH, MemoryKind.PREFIX_KV, agent, 0, stop, wish.seconds, reason)
            self._use(agent)
        return list(steps.values())

    def load(self, wish: Wish, start: int, stop: int) -> Step:
        """Carry out a load for which there is room, and return it as a step."""
        self._use(wish.agent)
        victims = self._take(stop - start)
        self._loaded[wish.agent] = stop
        if len(self._loaded) == 1:
            self._entries = [entry for entry in self._entries if entry.blocks]
        reason = "takes blocks of agents due later" if victims else "takes blocks that nobody will ask for"
        return Step(Action.LOAD, MemoryKind.PREFIX_KV, wish.agent, start, stop, wish.seconds, reason, victims)

    def _toucher(self, lot: Lot) -> str | None:
        """Return the nearest agent whose prefix, where it is touched, takes the lot along."""
        return next(
            (agent for agent in lot.agents if agent not in self.robbed and self._resident(agent)), None
        )

    def _resident(self, agent: str) -> int:
        """Return how many blocks of its prefix an agent has that a touch may rest on."""
        wish = self._wish_of(agent)
        return 0 if wish is None else self._loaded.get(agent, wish.resident)

    def _order(self) -> Iterator[_Entry]:
        """Yield the entries in order; of the snapshot's lots, as many as are asked for."""
        yield from self._entries
        for lot in self._lots:
            if self._used.isdisjoint(lot.agents):
                self._entries.append(_Entry(lot, lot.blocks))
                yield self._entries[-1]

    def _use(self, agent: str) -> None:
        """What a request has used goes to the back, out of reach of later steps: these serve farther ones."""
        self._used.add(agent)
        self._entries = [entry for entry in self._entries if agent not in entry.lot.agents]

    def _take(self, blocks: int) -> tuple[str, ...]:
        """Let a request for `blocks` new blocks take them; return the agents that lose some."""
        wanted = blocks + self._overhead - self._free
        self._free = self._overhead + max(0, -wanted)
        victims: dict[str, None] = {}
        for entry in self._order():
            if wanted <= 0:
                break
            taken = min(entry.blocks, wanted)
            entry.blocks -= taken
            wanted -= taken
            victims.update(dict.fromkeys(entry.lot.agents))
        self._rob(victims.keys() - self.robbed)
        return tuple(victims)

    def _rob(self, agents: Iterable[str]) -> None:
        for agent in agents:
            self.robbed.add(agent)
            wish = self._wish_of(agent)
            if wish is not None and wish.seconds < math.inf and not wish.held:
                place = self._wishes.place(agent)
                self.ends = place if self.ends is None else min(self.ends, place)
