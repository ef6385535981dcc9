"""Who calls in which order, for each class of workload: agents of equal size, step by step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType

from bench.workloads.base import Workload
from bench.workloads.diffusion import Diffusion, small_world
from bench.workloads.village import Village
from scalesim_daemon.whatif.workload import Drawn, Foresight, Gaps

AGENTS = 200
STEPS = 200
ACTIVE = AGENTS // 5
NEVER = 2**62


@dataclass(frozen=True, slots=True)
class Trace:
    """The calls of each step, in order."""

    name: str
    agents: int
    steps: tuple[tuple[str, ...], ...]

    def calls(self) -> list[str]:
        """Return who calls, in order."""
        return [agent for step in self.steps for agent in step]


def village(seed: int) -> Trace:
    """The demo's village: 25 people who work, meet, and pass on news."""
    return _played(Village(seed, STEPS))


def cyclic(seed: int) -> Trace:
    """Every agent calls in each fifth step."""
    return _drawn("cyclic", Gaps.PERIODIC, seed)


def random_gaps(seed: int) -> Trace:
    """Between two calls of an agent lie 1 to 9 steps, any of them as often."""
    return _drawn("random gaps", Gaps.RANDOM, seed)


def zipf(seed: int) -> Trace:
    """In each step a fifth of the agents, of which the k-th most talkative is drawn 1/k as often as the first."""
    rng = Random(seed)
    weights = [1 / rank for rank in range(1, AGENTS + 1)]
    steps = []
    for _ in range(STEPS):
        callers: dict[str, None] = {}
        while len(callers) < ACTIVE:
            callers[f"a{rng.choices(range(AGENTS), weights)[0]}"] = None
        steps.append(tuple(callers))
    return Trace("zipf", AGENTS, tuple(steps))


def diffusion(seed: int) -> Trace:
    """Posts that spread from one acquaintance to the next."""
    return _played(Diffusion(small_world(AGENTS, seed), seed, STEPS))


def _played(workload: Workload) -> Trace:
    steps = tuple(tuple(call.agent for call in step.calls) for step in workload.steps())
    return Trace(workload.simulation, len(workload.personas), steps)


def _drawn(name: str, gaps: Gaps, seed: int) -> Trace:
    workload = Drawn(agents=AGENTS, steps=STEPS, gaps=gaps, seed=seed).workload(Foresight())
    return Trace(name, AGENTS, tuple(tuple(call.agent for call in step) for step in workload.steps))


def upcoming(calls: list[str]) -> list[int]:
    """Return for each call the number of the agent's next one, `NEVER` where there is none."""
    following: dict[str, int] = {}
    numbers = []
    for number in range(len(calls) - 1, -1, -1):
        numbers.append(following.get(calls[number], NEVER))
        following[calls[number]] = number
    numbers.reverse()
    return numbers


def told(trace: Trace) -> Iterator[tuple[int, str, int | None]]:
    """Yield each call's step and agent, and the step of the agent's next call."""
    numbered = [(now, agent) for now, step in enumerate(trace.steps) for agent in step]
    for (now, agent), following in zip(numbered, upcoming(trace.calls()), strict=True):
        yield now, agent, None if following == NEVER else numbered[following][0]


TRACES: Mapping[str, Callable[[int], Trace]] = MappingProxyType(
    {"village": village, "cyclic": cyclic, "random gaps": random_gaps, "zipf": zipf, "diffusion": diffusion}
)
