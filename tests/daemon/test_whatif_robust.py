"""What wrong announcements cost, in the simulator, against the engine alone: with our eviction by due, with prefetches
into the pauses of the simulation, and with both.

The workloads are those in which the engine's own recency does well: few agents call often, or who has called calls
again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from random import Random

import pytest

from scalesim_daemon.whatif.costs import CPU_90M
from scalesim_daemon.whatif.run import ALONE, PLUGIN, SIDECAR, Setup, simulate
from scalesim_daemon.whatif.workload import Call, Prompt, Workload

AGENTS = tuple(f"a{number}" for number in range(40))
CALLS_PER_STEP = 4
LATEST = 40
STEPS = 40
SEEDS = range(1, 5)
DEVICE_TOKENS = 290 * 32  # a fifth of the agents' prompts
MOST_EXTRA = 1.03
MOST_WORK = 1.25
NO_PREFETCH = replace(PLUGIN, prefetch=False)

Told = Callable[[int | None], int | None]
HABITS = {"few call often": (1.2, 0.0), "who has called calls again": (0.8, 0.7)}


def schedule(rng: Random, skew: float, again: float) -> list[list[str]]:
    """Draw who calls: by Zipf's law with exponent `skew`, or with chance `again` one of the latest twelve callers."""
    weights = [1 / (rank + 1) ** skew for rank in range(len(AGENTS))]
    drawn: list[str] = []
    steps: list[list[str]] = []
    for _ in range(STEPS + LATEST):
        callers: list[str] = []
        while len(callers) < CALLS_PER_STEP:
            repeats = drawn and rng.random() < again
            agent = rng.choice(drawn[-12:]) if repeats else rng.choices(AGENTS, weights)[0]
            if agent not in callers:
                callers.append(agent)
        steps.append(callers)
        drawn += callers
    return steps


def workload(habit: str, seed: int, told: Callable[[Random], Told]) -> Workload:
    """Return a simulation that says of each agent's next call what `told` makes of the gap until then."""
    rng = Random(f"{habit} {seed}")
    steps, say = schedule(rng, *HABITS[habit]), told(rng)
    coming: dict[str, int] = {}
    calls: list[tuple[Call, ...]] = []
    for now in range(len(steps) - 1, -1, -1):
        gaps = [coming[agent] - now if agent in coming else None for agent in steps[now]]
        calls.append(tuple(Call(agent, say(gap)) for agent, gap in zip(steps[now], gaps, strict=True)))
        coming |= dict.fromkeys(steps[now], now)
    calls.reverse()
    opening = tuple(say(coming.get(agent)) for agent in AGENTS)
    prompt = Prompt(shared=128, private=1024, fresh=64, output=16)
    return Workload(AGENTS, opening, tuple(calls[:STEPS]), prompt, pace=0.0, warmup=5)


def right(_: Random) -> Told:
    return lambda gap: gap


def adversarial(_: Random) -> Told:
    """Who calls next is said to be last."""
    return lambda gap: None if gap is None else max(1, LATEST + 1 - gap)


def shuffled(rng: Random) -> Told:
    """What is said has nothing to do with what comes, but for its size."""
    seen: list[int] = []

    def say(gap: int | None) -> int | None:
        if gap is None:
            return None
        seen.append(gap)
        return rng.choice(seen)

    return say


def delayed(_: Random) -> Told:
    """Every call is announced for later than it comes."""
    return lambda gap: None if gap is None else gap + 3


def missing(_: Random) -> Told:
    return lambda gap: None


@cache
def alone(habit: str) -> int:
    """Return the tokens of prefixes that the engine alone computes again, summed over the seeds: what is said and how
    long pauses last changes nothing there."""
    plays = [workload(habit, seed, missing) for seed in SEEDS]
    return sum(simulate(play, CPU_90M, ALONE, device_tokens=DEVICE_TOKENS).recomputed for play in plays)


def extra(habit: str, told: Callable[[Random], Told], setup: Setup, pace: float = 0.0) -> tuple[float, float]:
    """Return the tokens of prefixes that calls compute again, and these with all that was prefetched, over what the
    engine alone computes again."""
    plays = [replace(workload(habit, seed, told), pace=pace) for seed in SEEDS]
    played = [simulate(play, CPU_90M, setup, device_tokens=DEVICE_TOKENS) for play in plays]
    recomputed = sum(figures.recomputed for figures in played)
    prefetched = sum(figures.prefetched_tokens for figures in played)
    return recomputed / alone(habit), (recomputed + prefetched) / alone(habit)


@pytest.mark.parametrize("habit", HABITS)
def test_right_announcements_save_much(habit: str) -> None:
    assert extra(habit, right, NO_PREFETCH)[0] < 0.75


@pytest.mark.parametrize("told", [adversarial, shuffled, delayed, missing])
@pytest.mark.parametrize("habit", HABITS)
def test_wrong_announcements_cost_next_to_nothing(habit: str, told: Callable[[Random], Told]) -> None:
    share, _ = extra(habit, told, NO_PREFETCH)
    print(f"{habit}, {told.__name__}: {share:.3f} of the engine alone's")
    assert share <= MOST_EXTRA


@pytest.mark.parametrize(
    ("told", "setup"),
    [
        *((told, PLUGIN) for told in (adversarial, shuffled, delayed, missing)),
        *((told, SIDECAR) for told in (adversarial, shuffled)),
    ],
)
@pytest.mark.parametrize("habit", HABITS)
def test_prefetches_by_wrong_announcements_cost_calls_next_to_nothing(
    habit: str, told: Callable[[Random], Told], setup: Setup
) -> None:
    """What is prefetched until the announcements have shown what they are worth is computed in pauses."""
    share, with_prefetches = extra(habit, told, setup, pace=1.0)
    print(
        f"{habit}, {told.__name__}: {share:.3f} of the engine alone's, with prefetches {with_prefetches:.3f}"
    )
    assert share <= MOST_EXTRA
    assert with_prefetches <= MOST_WORK
