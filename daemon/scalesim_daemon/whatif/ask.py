"""The questions: what is gained here, what would more memory buy, how many agents fit, how good must foresight be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

from scalesim_daemon.whatif.costs import Costs
from scalesim_daemon.whatif.run import ALONE, PLUGIN, SIDECAR, Figures, Setup, needed_tokens, simulate
from scalesim_daemon.whatif.workload import Drawn, Foresight, Workload, WorkloadError, read_trace

VARIANTS: Mapping[str, Setup] = MappingProxyType(
    {"engine alone": ALONE, "with sidecar": SIDECAR, "sidecar and plug-in": PLUGIN}
)
FACTORS = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
FORESIGHTS = (
    Foresight(),
    Foresight(error=0.25),
    Foresight(error=0.5),
    Foresight(error=1.0),
    Foresight(misled=0.5),
    Foresight(misled=1.0),
)
MOST_AGENTS = 10_000
# How close the largest population is looked for.
CLOSE = 0.02

Tick = Callable[[str], None]


class Ask(StrEnum):
    """What is asked."""

    GAIN = "gain"
    MEMORY = "memory"
    AGENTS = "agents"
    FORESIGHT = "foresight"


@dataclass(frozen=True, slots=True)
class Scene:
    """What is simulated: a drawn simulation or a recorded one, on an engine with memory for so many tokens."""

    drawn: Drawn
    trace: Path | None
    foresight: Foresight
    costs: Costs
    device_tokens: int
    host_tokens: int

    def workload(self) -> Workload:
        """Draw or read it. Raises `WorkloadError`."""
        drawn = self.drawn
        if self.trace is None:
            return drawn.workload(self.foresight)
        return read_trace(self.trace, self.foresight, drawn.prompt, drawn.pace, drawn.concurrency, drawn.seed)

    def play(self, workload: Workload, setup: Setup) -> Figures:
        """Simulate once."""
        return simulate(
            workload, self.costs, setup, device_tokens=self.device_tokens, host_tokens=self.host_tokens
        )

    def ideal(self, workload: Workload) -> Figures:
        """Simulate on an engine with memory for everything."""
        return replace(self, device_tokens=self.everything(workload), host_tokens=0).play(workload, ALONE)

    def everything(self, workload: Workload) -> int:
        """Return how many tokens of memory hold all agents, and what all their calls need at once."""
        prompt, block = workload.prompt, self.costs.block_tokens
        each = prompt.private + prompt.fresh + prompt.output + 2 * block
        # What calls leave behind is let go before any prefix is, but takes room while others run.
        return prompt.shared + 2 * len(workload.agents) * each


@dataclass(frozen=True, slots=True)
class Point:
    """One place of a sweep: its `label` for people, its `value` on the axis, and the figures of each variant."""

    label: str
    value: float
    figures: Mapping[str, Figures]


@dataclass(frozen=True, slots=True)
class Answer:
    """A sweep along an `axis`; `ideal` is an engine that holds everything (at the sweep's first point). `fits` is the
    largest number of agents with each variant, where that was asked, 0 for fewer than call in a step."""

    ask: Ask
    axis: str
    ideal: Figures
    points: tuple[Point, ...]
    fits: Mapping[str, int] | None = None


def answer(ask: Ask, scene: Scene, slowdown: float, tick: Tick) -> Answer:
    """Answer a question; `tick` is told before each simulation what is simulated.

    `slowdown` is for `Ask.AGENTS`: a population fits while its steps take at most that many times as long as with
    everything in memory. Raises `WorkloadError`.
    """
    match ask:
        case Ask.GAIN:
            workload = scene.workload()
            points = (_point("", 0.0, scene, workload, tick),)
            return Answer(ask, "", scene.ideal(workload), points)
        case Ask.MEMORY:
            return _memory(scene, tick)
        case Ask.FORESIGHT:
            return _foresight(scene, tick)
        case Ask.AGENTS:
            return _agents(scene, slowdown, tick)


def count(ask: Ask) -> int | None:
    """Return how many simulations answer a question; None where that depends on how they come out."""
    points = {Ask.GAIN: 1, Ask.MEMORY: len(FACTORS), Ask.FORESIGHT: len(FORESIGHTS)}
    return points[ask] * len(VARIANTS) if ask in points else None


def _point(label: str, value: float, scene: Scene, workload: Workload, tick: Tick) -> Point:
    figures = {}
    for name, setup in VARIANTS.items():
        tick(f"{label} {name}".strip())
        figures[name] = scene.play(workload, setup)
    return Point(label, value, figures)


def _memory(scene: Scene, tick: Tick) -> Answer:
    workload = scene.workload()
    points = []
    for factor in FACTORS:
        tokens = round(factor * scene.device_tokens)
        if factor >= 1 or tokens >= needed_tokens(workload, scene.costs):
            sized = replace(scene, device_tokens=tokens)
            points.append(_point(f"{tokens:,} tokens", tokens, sized, workload, tick))
    return Answer(Ask.MEMORY, "tokens on the device", scene.ideal(workload), tuple(points))


def _foresight(scene: Scene, tick: Tick) -> Answer:
    points = []
    for number, foresight in enumerate(FORESIGHTS):
        workload = replace(scene, foresight=foresight).workload()
        points.append(_point(describe(foresight), number, scene, workload, tick))
    return Answer(Ask.FORESIGHT, "foresight", scene.ideal(scene.workload()), tuple(points))


def _agents(scene: Scene, slowdown: float, tick: Tick) -> Answer:
    if scene.trace is not None:
        raise WorkloadError("how many agents fit can be asked of a drawn simulation only, not of a trace")
    search = _Search(scene, slowdown, tick)
    fits = {name: search.largest(name) for name in VARIANTS}
    points = []
    for agents in sorted({found or search.smallest for found in fits.values()}):
        sized = search.sized(agents)
        points.append(_point(f"{agents:,} agents", agents, sized, sized.workload(), tick))
    first = search.sized(round(points[0].value))
    return Answer(Ask.AGENTS, "agents", first.ideal(first.workload()), tuple(points), fits)


class _Search:
    """For the largest population that isn't slowed down by more than is allowed."""

    def __init__(self, scene: Scene, slowdown: float, tick: Tick) -> None:
        # One call per step.
        self.smallest = round(1 / scene.drawn.active)
        self._scene = scene
        self._slowdown = slowdown
        self._tick = tick
        self._ideals: dict[int, float] = {}

    def sized(self, agents: int) -> Scene:
        """Return the scene with so many agents."""
        return replace(self._scene, drawn=replace(self._scene.drawn, agents=agents))

    def largest(self, variant: str) -> int:
        """Return the largest number of agents, to 2 %, or 0 where not even the smallest fits; beyond 10,000 it isn't
        looked for."""
        low, high = self.smallest, 2 * self.smallest
        if not self._fits(variant, low):
            return 0
        while high <= MOST_AGENTS and self._fits(variant, high):
            low, high = high, 2 * high
        while high - low > max(1, CLOSE * low):
            middle = (low + high) // 2
            low, high = (middle, high) if self._fits(variant, middle) else (low, middle)
        return low

    def _fits(self, variant: str, agents: int) -> bool:
        self._tick(f"{agents:,} agents {variant}")
        scene = self.sized(agents)
        workload = scene.workload()
        if agents not in self._ideals:
            self._ideals[agents] = scene.ideal(workload).makespan
        return scene.play(workload, VARIANTS[variant]).makespan <= self._slowdown * self._ideals[agents]


def describe(foresight: Foresight) -> str:
    """Say how good the announcements are."""
    parts = []
    if foresight.error:
        parts.append(f"off by up to {foresight.error:.0%}")
    if foresight.misled:
        parts.append(f"{foresight.misled:.0%} tell nothing")
    return ", ".join(parts) or "exact"


def enough_alone(answer: Answer, variant: str, point: Point) -> float:
    """Return with about how much memory the engine alone is as fast as the variant at `point`, read off between the
    places of the sweep; infinity where none of it is enough."""
    wanted = point.figures[variant].makespan
    alone = [(p.value, p.figures["engine alone"].makespan) for p in answer.points]
    for (less, slower), (more, faster) in pairwise(alone):
        if slower >= wanted >= faster:
            return less + (more - less) * (slower - wanted) / max(slower - faster, 1e-9)
    return math.inf
