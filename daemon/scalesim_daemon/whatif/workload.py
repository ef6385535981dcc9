"""Who calls when: a drawn simulation, or one that was recorded; and what it says beforehand about its calls. Pure."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import NamedTuple

from scalesim_client.events import Event

_ROUNDING = 1e-9


class WorkloadError(ValueError):
    """A workload that can't be played; the message is for people."""


class Gaps(StrEnum):
    """How many steps lie between two calls of an agent: any number from 1 to twice the mean, or always the mean."""

    RANDOM = "random"
    PERIODIC = "periodic"


class Call(NamedTuple):
    """One LLM call. Once it is answered, the simulation says that the agent's next is `told` steps away (None: says
    nothing)."""

    agent: str
    told: int | None


class Lines(NamedTuple):
    """What a simulation says in one step: `before` its calls, and `after` the last answer."""

    before: tuple[Event, ...]
    after: tuple[Event, ...]


class Stranger(NamedTuple):
    """A request that nobody announces, `at` seconds after the simulation's start, and its tokens."""

    at: float
    prompt: int
    output: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """The tokens of each call: `shared` by all agents and `private` to one, both the same every time, and `fresh` ones;
    and of its answer. The defaults are ours: of the paper's prompts no more is known than that 125 agents fit into
    100,000 tokens."""

    shared: int = 0
    private: int = 800
    fresh: int = 128
    output: int = 128

    def __post_init__(self) -> None:
        """Raise `WorkloadError`."""
        if min(self.shared, self.private) < 0 or min(self.fresh, self.output) < 1:
            raise WorkloadError(
                "shared and private tokens can't be negative; fresh and output ones are at least 1"
            )

    @property
    def tokens(self) -> int:
        """The length of the prompt."""
        return self.shared + self.private + self.fresh


@dataclass(frozen=True, slots=True)
class Foresight:
    """How good the announcements are: each gap is off by up to `error` of itself either way (drawn evenly), and a share
    `misled` of them are some other call's gap, which tells nothing."""

    error: float = 0.0
    misled: float = 0.0

    def __post_init__(self) -> None:
        """Raise `WorkloadError`."""
        if not (math.isfinite(self.error) and self.error >= 0 and 0 <= self.misled <= 1):
            raise WorkloadError("the error is at least 0, the misled share between 0 and 1")


@dataclass(frozen=True, slots=True)
class Workload:
    """A simulation: per step the calls it sends at once, each step `pace` seconds of its own after the last answer. The
    first `warmup` steps don't count. At most `concurrency` calls are under way (None: any number).

    With a `script` it says the lines of each step, and nothing is told of any call; step 0 is before the first.
    Meanwhile `strangers` use the engine, in order of their times; what they ask is nowhere in its cache.
    """

    agents: tuple[str, ...]
    opening: tuple[int | None, ...]
    steps: tuple[tuple[Call, ...], ...]
    prompt: Prompt
    pace: float
    warmup: int
    concurrency: int | None = None
    script: tuple[Lines, ...] | None = None
    strangers: tuple[Stranger, ...] = ()

    def __post_init__(self) -> None:
        """Raise `WorkloadError`."""
        if not (math.isfinite(self.pace) and self.pace >= 0):
            raise WorkloadError("the pace is a number of seconds, at least 0")
        if not any(self.steps[self.warmup :]):
            raise WorkloadError("no step with a call is left to count after the warm-up")
        if self.concurrency is not None and self.concurrency < 1:
            raise WorkloadError("at least one call must be allowed at a time")
        if self.script is not None and len(self.script) != len(self.steps):
            raise WorkloadError("a script has lines for every step")


@dataclass(frozen=True, slots=True)
class Drawn:
    """The makings of a drawn simulation. The defaults are the paper's setting where it is known: a fifth of the agents
    calls in each step, and a quarter of 500 agents fits on the device."""

    agents: int = 500
    steps: int = 40
    active: float = 0.2
    gaps: Gaps = Gaps.RANDOM
    pace: float = 1.0
    concurrency: int | None = None
    prompt: Prompt = Prompt()
    seed: int = 1

    def __post_init__(self) -> None:
        """Raise `WorkloadError`."""
        if self.agents < 1 or self.steps < 1:
            raise WorkloadError("there is at least one agent and one step")
        if not 0 < self.active <= 1:
            raise WorkloadError("the share of active agents is above 0 and at most 1")

    def workload(self, foresight: Foresight) -> Workload:
        """Draw it. Every agent has called once before the first step that counts."""
        rng = Random(self.seed)
        mean = math.ceil(1 / self.active)
        agents = tuple(f"a{number}" for number in range(self.agents))
        end = mean + self.steps
        schedule: list[list[str]] = [[] for _ in range(end + 2 * mean)]
        for agent in agents:
            now = rng.randrange(mean)
            while now < len(schedule):
                schedule[now].append(agent)
                now += self._gap(rng)
        for callers in schedule:
            rng.shuffle(callers)
        opening, steps = announced(agents, schedule, foresight, rng)
        return Workload(agents, opening, steps[:end], self.prompt, self.pace, mean, self.concurrency)

    def _gap(self, rng: Random) -> int:
        """Draw a gap; of means that are no whole number the one below or above, as often as makes up the mean."""
        mean, rest = divmod(1 / self.active, 1)
        about = int(mean) + (rest > _ROUNDING and rng.random() < rest)
        return about if self.gaps is Gaps.PERIODIC else rng.randint(1, 2 * about - 1)


def read_trace(
    path: Path, foresight: Foresight, prompt: Prompt, pace: float, concurrency: int | None, seed: int
) -> Workload:
    """Read a recorded simulation: CSV with the columns `step` (whole numbers from 0 on, in order) and `agent`, one line
    per call. All of it counts. Raises `WorkloadError`."""
    schedule: list[list[str]] = []
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            rows = csv.DictReader(lines)
            if not {"step", "agent"} <= set(rows.fieldnames or ()):
                raise WorkloadError(f"{path}: the first line must name the columns step and agent")
            for row in rows:
                _record(schedule, row["step"], row["agent"], f"{path}, line {rows.line_num}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise WorkloadError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    agents = tuple(dict.fromkeys(agent for callers in schedule for agent in callers))
    opening, steps = announced(agents, schedule, foresight, Random(seed))
    return Workload(agents, opening, steps, prompt, pace, 0, concurrency)


def _record(schedule: list[list[str]], step: str | None, agent: str | None, where: str) -> None:
    if not agent or step is None or not step.strip().isdecimal():
        raise WorkloadError(f"{where}: write a whole number and an agent's name")
    now = int(step)
    if now < len(schedule) - 1:
        raise WorkloadError(f"{where}: step {now} comes after step {len(schedule) - 1}")
    if now > len(schedule) + 1_000_000:
        raise WorkloadError(f"{where}: step {now} is a million steps after the one before")
    schedule.extend([] for _ in range(now + 1 - len(schedule)))
    if agent in schedule[now]:
        raise WorkloadError(f"{where}: {agent} calls twice in step {now}")
    schedule[now].append(agent)


def announced(
    agents: Sequence[str], schedule: Sequence[Iterable[str]], foresight: Foresight, rng: Random
) -> tuple[tuple[int | None, ...], tuple[tuple[Call, ...], ...]]:
    """Return what is said of each agent's first call, and the calls of a schedule, who calls in each step, with what is
    said of the next ones."""
    coming: dict[str, int] = {}
    gaps: list[list[tuple[str, int | None]]] = []
    for now in range(len(schedule) - 1, -1, -1):
        gaps.append([(agent, coming[agent] - now if agent in coming else None) for agent in schedule[now]])
        coming.update(dict.fromkeys(schedule[now], now))
    gaps.reverse()
    known = [gap for callers in gaps for _, gap in callers if gap is not None]

    def told(gap: int | None) -> int | None:
        if gap is None:
            return None
        if foresight.misled and rng.random() < foresight.misled:
            gap = rng.choice(known)
        if foresight.error:
            gap = max(1, round(gap * rng.uniform(1 - foresight.error, 1 + foresight.error)))
        return gap

    opening = tuple(coming.get(agent) for agent in agents)
    return opening, tuple(tuple(Call(agent, told(gap)) for agent, gap in callers) for callers in gaps)
