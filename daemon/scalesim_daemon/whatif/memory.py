"""The prefix cache of a simulated engine, in blocks per agent: a device, and maybe a host tier behind it. Pure.

An agent's blocks leave the device in vLLM's order, the tail of the prefix first, so that one number per agent says
what is there. What all agents share is used by every request and never leaves: it isn't counted here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import count

from scalesim_daemon.whatif.order import ByRecency, Order

_LEFT = "\0"


class Host:
    """A tier of `capacity` blocks behind the device. `exclusive` holds what the device doesn't, as our plug-in's tier
    does; else it holds copies of what was computed, as the engine's own does."""

    def __init__(self, capacity: int, order: Order, *, exclusive: bool) -> None:
        self.capacity = capacity
        self.exclusive = exclusive
        self.used = 0
        self._order = order
        self._blocks: dict[str, int] = {}

    def beyond(self, agent: str, resident: int) -> int:
        """Return how many blocks follow here on the first `resident` ones of the agent."""
        held = self._blocks.get(agent, 0)
        return held if self.exclusive else max(0, held - resident)

    def evicted(self, agent: str, blocks: int) -> None:
        """The device gave up so many blocks of the agent."""
        if self.exclusive:
            self._hold(agent, self._blocks.get(agent, 0) + blocks)

    def loaded(self, agent: str, blocks: int) -> None:
        """The device took so many blocks of the agent from here."""
        if self.exclusive and blocks:
            self._hold(agent, self._blocks[agent] - blocks)

    def computed(self, agent: str, blocks: int) -> None:
        """The device has used the first `blocks` of the agent."""
        if not self.exclusive:
            self._hold(agent, max(blocks, self._blocks.get(agent, 0)))

    def _hold(self, agent: str, blocks: int) -> None:
        self.used += blocks - self._blocks.get(agent, 0)
        self._blocks[agent] = blocks
        self._order.put(agent)
        while (excess := self.used - self.capacity) > 0:
            first = self._order.first()
            assert first is not None
            lost = min(excess, self._blocks[first])
            self._blocks[first] -= lost
            self.used -= lost
            self._drop_empty(first)
        self._drop_empty(agent)

    def _drop_empty(self, agent: str) -> None:
        if self._blocks.get(agent) == 0:
            del self._blocks[agent]
            self._order.discard(agent)


class Device:
    """`capacity` blocks, of which `free` hold nothing. Victims follow `order`; recency is kept beside it, for that is
    what can be known outside of the engine."""

    def __init__(self, capacity: int, order: Order, host: Host | None = None) -> None:
        self.capacity = capacity
        self.free = capacity
        self._host = host
        self._order = order
        self._recency = ByRecency()
        self._blocks: dict[str, int] = {}
        self._idle = 0
        self._held: Counter[str] = Counter()
        self._serial = count()

    def resident(self, agent: str) -> int:
        """Return how many blocks at the head of the agent's prefix are there."""
        return self._blocks.get(agent, 0)

    def can_begin(self, agent: str, prefix: int, rest: int) -> bool:
        """Whether a request fits now that uses `prefix` blocks of the agent and `rest` of its own."""
        there = self.resident(agent)
        idle = self._idle if agent in self._held else self._idle - there
        return max(0, prefix - there) + rest <= self.free + idle

    def begin(self, agent: str, prefix: int, rest: int) -> tuple[int, int]:
        """Give a request its blocks; return how many of its prefix were there, and how many come from the host."""
        there = self.resident(agent)
        if agent not in self._held:
            self._idle -= there
            self._recency.discard(agent)
            self._order.discard(agent)
        self._held[agent] += 1
        cached, loaded = min(there, prefix), 0
        if self._host is not None:
            loaded = min(prefix - cached, self._host.beyond(agent, there))
            self._host.loaded(agent, loaded)
        self._take(max(0, prefix - there) + rest)
        self._blocks[agent] = max(prefix, there)
        return cached, loaded

    def end(self, agent: str, rest: int, full: int) -> None:
        """A request of the agent is done. Of its other `rest` blocks `full` ones stay, which nobody will ask for."""
        self.free += rest - full
        if full:
            self._keep(f"{_LEFT}{next(self._serial)}", full)
        self._held[agent] -= 1
        if not self._held[agent]:
            del self._held[agent]
            if not self._blocks[agent]:
                del self._blocks[agent]
                return
            self._keep(agent, self._blocks[agent])
        if self._host is not None:
            self._host.computed(agent, self._blocks[agent])

    def idle(self) -> Iterator[tuple[str | None, int]]:
        """Yield what no request uses, the least recently used first: the agent (None: nobody) and its blocks."""
        for key in self._recency:
            yield None if key.startswith(_LEFT) else key, self._blocks[key]

    def _keep(self, key: str, blocks: int) -> None:
        self._blocks[key] = blocks
        self._idle += blocks
        self._recency.put(key)
        self._order.put(key)

    def _take(self, wanted: int) -> None:
        while self.free < wanted:
            key = self._order.first()
            assert key is not None, "a request began that doesn't fit"
            lost = min(wanted - self.free, self._blocks[key])
            self._blocks[key] -= lost
            self._idle -= lost
            self.free += lost
            if not self._blocks[key]:
                del self._blocks[key]
                self._recency.discard(key)
                self._order.discard(key)
            if self._host is not None and not key.startswith(_LEFT):
                self._host.evicted(key, lost)
        self.free -= wanted
