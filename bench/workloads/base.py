"""What every workload gives: personas, and step by step the calls and the events of its agents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from scalesim_client.events import Event

Cause = Literal["activity", "interaction", "path"]
MAX_ACTIVE_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class Call:
    """One LLM call of an agent. `memory` is the text of what it sees now, different for each call."""

    agent: str
    cause: Cause
    memory: str


@dataclass(frozen=True, slots=True)
class Step:
    """One step: at clock value `now` a simulation says `before`, sends `calls` at once, then says `after`."""

    now: int
    before: tuple[Event, ...]
    calls: tuple[Call, ...]
    after: tuple[Event, ...]


class Workload(Protocol):
    """A simulation on a clock of steps, whose course never depends on what the engine answers."""

    @property
    def simulation(self) -> str:
        """Name of the simulation."""
        ...

    @property
    def personas(self) -> Mapping[str, str]:
        """The private prompt text of each agent, by id."""
        ...

    @property
    def opening(self) -> tuple[Event, ...]:
        """What it says at clock value 0, before the first step; registration and memory are the runner's."""
        ...

    def steps(self) -> Iterator[Step]:
        """Run the simulation from its start; every call gives the same steps."""
        ...


def active_limit(agents: int, share: float = MAX_ACTIVE_SHARE) -> int:
    """Return how many of `agents` may call in one step."""
    return max(1, int(agents * share))
