"""What a simulation foretells, told otherwise: the same calls at the same steps, announced differently."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from bench.workloads.base import Step, Workload
from scalesim_client.events import ActivityStarted, Event

Speech = Callable[[Workload, Random], Workload]
"""Returns a workload with the calls of the given one; what it draws comes from the generator."""

LATEST: Final = 40  # steps; later than nearly every agent's next call


@dataclass(frozen=True, slots=True)
class Recorded:
    """A workload's course."""

    simulation: str
    personas: Mapping[str, str]
    opening: tuple[Event, ...]
    course: tuple[Step, ...]

    def steps(self) -> Iterator[Step]:
        """Give the steps again."""
        return iter(self.course)


def record(workload: Workload) -> Recorded:
    """Run a workload once."""
    return Recorded(workload.simulation, workload.personas, workload.opening, tuple(workload.steps()))


def own(workload: Workload, rng: Random) -> Workload:
    """Say what the simulation says."""
    return workload


def nothing(workload: Workload, rng: Random) -> Workload:
    """Foretell nothing: invocations alone are heard."""
    return _retell(workload, (), (replace(step, before=(), after=()) for step in workload.steps()))


def foretold(say: Callable[[int, Random], float]) -> Speech:
    """Return the speech that says of each agent, at the start and after each of its calls, when it calls next: as many
    steps later as `say` makes of the true gap. For who doesn't call again the gap reaches past the end."""

    def speech(workload: Workload, rng: Random) -> Workload:
        course = tuple(workload.steps())
        coming = dict.fromkeys(workload.personas, course[-1].now + 1)

        def announce(agent: str, now: int) -> ActivityStarted:
            return ActivityStarted(agent=agent, until=now + say(coming[agent] - now, rng))

        retold = []
        for step in reversed(course):
            callers = dict.fromkeys(call.agent for call in step.calls)
            said = tuple(announce(agent, step.now) for agent in callers)
            retold.append(replace(step, before=(), after=said))
            coming |= dict.fromkeys(callers, step.now)
        opening = tuple(announce(agent, 0) for agent in workload.personas)
        return _retell(workload, opening, reversed(retold))

    return speech


def true_gap(gap: int, rng: Random) -> float:
    """Say what is."""
    return gap


def reversed_gap(gap: int, rng: Random) -> float:
    """Say of who calls next that it is last."""
    return max(1, LATEST + 1 - gap)


def noisy_gap(share: float) -> Callable[[int, Random], float]:
    """Be off by up to `share` of the gap, either way."""
    return lambda gap, rng: gap * rng.uniform(1 - share, 1 + share)


def _retell(workload: Workload, opening: tuple[Event, ...], steps: Iterator[Step]) -> Recorded:
    return Recorded(workload.simulation, workload.personas, opening, tuple(steps))
