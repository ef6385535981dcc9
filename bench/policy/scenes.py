"""Simulations of each class for the simulated engine: who calls in which step, and what is said beforehand."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from bench.workloads.base import Workload
from bench.workloads.diffusion import Diffusion, small_world
from bench.workloads.mooncake import Arrival
from bench.workloads.places import WIDTH
from bench.workloads.simulated import simulated
from bench.workloads.village import Village
from scalesim_client.events import (
    ActivityStarted,
    AgentActivated,
    AgentMoved,
    Event,
    PathDeclared,
)
from scalesim_daemon.whatif.workload import Drawn, Foresight, Lines, Prompt, Stranger

# Steps that are drawn beyond those that are played, for what is said of the last calls.
HORIZON = 20
WARMUP = 15
PEOPLE = 25
# Villages lie so far apart that nobody of one walks or looks to another.
APART = 10 * WIDTH
ACTIVE = 0.2


@dataclass(frozen=True, slots=True)
class Scene:
    """The calls of each step, of which the first `played` are played and the first `warmup` of these don't count.
    Without a `script` the simulation knows when each agent calls next, and says it. Meanwhile `strangers` call, too."""

    agents: tuple[str, ...]
    schedule: tuple[tuple[str, ...], ...]
    script: tuple[Lines, ...] | None
    played: int
    warmup: int
    strangers: tuple[Stranger, ...] = ()

    @property
    def active(self) -> float:
        """The share of the agents that calls in a step that counts, on average."""
        counted = self.schedule[self.warmup : self.played]
        return sum(map(len, counted)) / len(counted) / len(self.agents)


def independent(agents: int, steps: int, seed: int, active: float = ACTIVE) -> Scene:
    """Everybody acts for 1 step to almost twice the mean, which makes the `active` share, and knows for how long."""
    warmup = max(WARMUP, math.ceil(1 / active))
    drawn = Drawn(agents=agents, steps=warmup + steps + HORIZON, active=active, seed=seed)
    workload = drawn.workload(Foresight())
    schedule = tuple(tuple(call.agent for call in calls) for calls in workload.steps)
    return Scene(workload.agents, schedule, None, warmup + steps, warmup)


def interaction(agents: int, steps: int, seed: int) -> Scene:
    """Villages as in the demo, side by side, of 25 people each or fewer, who work, walk, meet and hear news."""
    played = WARMUP + steps
    count = -(-agents // PEOPLE)
    people = [agents // count + (number < agents % count) for number in range(count)]
    villages = [Village(seed * 1000 + number, played + HORIZON, size) for number, size in enumerate(people)]
    # At clock value 0 nobody calls yet.
    schedule: list[list[str]] = [[] for _ in range(played + HORIZON + 1)]
    opening: list[Event] = []
    before: list[list[Event]] = [[] for _ in schedule]
    after: list[list[Event]] = [[] for _ in schedule]
    for number, village in enumerate(villages):
        opening += (elsewhere(event, number) for event in village.opening)
        for step in village.steps():
            schedule[step.now] += (f"v{number}-{call.agent}" for call in step.calls)
            before[step.now] += (elsewhere(event, number) for event in step.before)
            after[step.now] += (elsewhere(event, number) for event in step.after)
    names = tuple(f"v{number}-{name}" for number, village in enumerate(villages) for name in village.personas)
    before[0] = opening
    lines = zip(map(tuple, before), map(tuple, after), strict=True)
    return Scene(names, tuple(map(tuple, schedule)), tuple(Lines(*said) for said in lines), played, WARMUP)


def elsewhere(event: Event, village: int) -> Event:
    """Return what the event is where it happens in another village: no name and no place is in two of them."""

    def away(xy: tuple[float, float] | None) -> tuple[float, float] | None:
        return None if xy is None else (xy[0] + village * APART, xy[1])

    def name(word: str) -> str:
        return f"v{village}-{word}"

    match event:
        case AgentMoved():
            place = None if event.place is None else name(event.place)
            return replace(
                event,
                agent=name(event.agent),
                xy=away(event.xy),
                destination=away(event.destination),
                place=place,
            )
        case AgentActivated():
            return replace(event, agent=name(event.agent), path=name(event.path))
        case PathDeclared():
            edges = [(name(source), name(target)) for source, target in event.edges or ()]
            return replace(event, path=name(event.path), edges=edges)
        case ActivityStarted():
            return replace(event, agent=name(event.agent))
    raise TypeError(f"{event.type} is said by no village")


def path(agents: int, steps: int, seed: int) -> Scene:
    """Posts that spread over a small world; who reads one calls."""
    played = WARMUP + steps
    return scripted(Diffusion(small_world(agents, seed), seed, played + HORIZON), played, WARMUP)


def scripted(workload: Workload, played: int, warmup: int) -> Scene:
    """Return a workload as a scene; at clock value 0, which is one of its steps, nobody calls yet."""
    whole = simulated(workload, Prompt(), pace=0.0, warmup=warmup)
    schedule = tuple(tuple(call.agent for call in calls) for calls in whole.steps)
    return Scene(whole.agents, schedule, whole.script, played, warmup)


def mixed(draw: Draw, arrivals: Sequence[Arrival], agents: int, steps: int, seed: int) -> Scene:
    """Return the scene that `draw` makes, beside recorded requests that nobody announces."""
    strangers = tuple(Stranger(one.at, one.prompt_tokens, one.output_tokens) for one in arrivals)
    return replace(draw(agents, steps, seed), strangers=strangers)


Draw = Callable[[int, int, int], Scene]
"""Makes a scene from a number of agents, of steps that count, and a seed."""

CLASSES: Mapping[str, Draw] = MappingProxyType(
    {"independent": independent, "interaction": interaction, "path": path}
)
