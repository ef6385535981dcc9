"""Simulations that use the real publisher, whose calls are timed: they are to return at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from random import Random
from time import perf_counter
from typing import ParamSpec

from scalesim_client import Publisher
from scalesim_client.events import AgentReleased

AGENTS = 20
CALLS_PER_STEP = 10
FLUSH_SECONDS = 60.0
NEVER = 1e9
OWN_EVENTS = 2
"""Events that a publisher says of itself: its stream is opened and closed. What else it says of itself is its state,
and that is asked for only where something was lost."""

P = ParamSpec("P")


class Published:
    """One such simulation. `longest` is the longest call in seconds, `calls` how many there were."""

    def __init__(self, name: str, address: str, names: Iterator[int], random: Random) -> None:
        # Its whole state is said by nobody's clock, so that all that is sent can be counted.
        self._publisher = Publisher(name, address=address, snapshot_every=NEVER)
        self._names = names
        self._random = random
        self._agents = [self._new() for _ in range(AGENTS)]
        self._now = 0
        self.calls = 0
        self.longest = 0.0
        self.gone = 0

    @property
    def sent(self) -> int:
        """Events that were sent so far; exact once it is closed."""
        return self._publisher.sent + OWN_EVENTS

    @property
    def dropped(self) -> int:
        """Events that it gave up, by its own count."""
        return self._publisher.dropped + self._publisher.invalid

    def __len__(self) -> int:
        """Return how many agents there are."""
        return len(self._agents)

    def step(self) -> None:
        """Say what a simulation says in a step: one agent goes, another comes, some act."""
        self._now += 1
        publisher = self._publisher
        self._time(publisher.step, float(self._now))
        place = self._random.randrange(AGENTS)
        self._agents[place], gone = self._new(), self._agents[place]
        self._time(publisher.send, AgentReleased(agent=gone))
        self.gone += 1
        for agent in self._random.sample(self._agents, CALLS_PER_STEP):
            self._time(lambda name: publisher.activity(name, for_=self._random.randrange(1, 20)), agent)

    async def close(self) -> None:
        """Send all that waits, and end the stream. That may wait, and so it does in a thread."""
        await asyncio.to_thread(self._publisher.flush, FLUSH_SECONDS)
        await asyncio.to_thread(self._publisher.close)

    def _new(self) -> str:
        return f"agent{next(self._names):07d}"

    def _time(self, say: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        began = perf_counter()
        say(*args, **kwargs)
        self.longest = max(self.longest, perf_counter() - began)
        self.calls += 1
