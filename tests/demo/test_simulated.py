"""The benches' workloads in the what-if simulator: what a simulation says is what the daemon's estimators hear."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.workloads.base import Workload
from bench.workloads.classes import Loners, Walkers
from bench.workloads.diffusion import Diffusion, scale_free
from bench.workloads.simulated import simulated
from scalesim_daemon.whatif.costs import CPU_90M
from scalesim_daemon.whatif.run import ALONE, PLUGIN, Figures, Setup, simulate
from scalesim_daemon.whatif.workload import Prompt, WorkloadError

AGENTS = 40
STEPS = 24
WARMUP = 8
PROMPT = Prompt(private=1024, fresh=64, output=16)

MAKE: dict[str, Callable[[], Workload]] = {
    "activity": lambda: Loners(1, STEPS, AGENTS, 0.2),
    "interaction": lambda: Walkers(1, STEPS, AGENTS, 0.2),
    "path": lambda: Diffusion(scale_free(AGENTS, 1), 1, STEPS),
}
LEAST_ORDER = {"activity": 0.99, "interaction": 0.97, "path": 0.75}


def play(workload: Workload, setup: Setup) -> Figures:
    play = simulated(workload, PROMPT, pace=0.0, warmup=WARMUP)
    return simulate(play, CPU_90M, setup, device_tokens=AGENTS // 4 * PROMPT.tokens)


@pytest.mark.parametrize("name", MAKE)
def test_the_estimators_of_a_class_foresee_its_calls(name: str) -> None:
    alone, ours = play(MAKE[name](), ALONE), play(MAKE[name](), PLUGIN)
    assert alone.calls == ours.calls == sum(len(step.calls) for step in list(MAKE[name]().steps())[WARMUP:])
    assert ours.order is not None
    assert ours.order > LEAST_ORDER[name]
    assert ours.recomputed < 0.85 * alone.recomputed


def test_a_warm_up_leaves_a_step_with_a_call() -> None:
    with pytest.raises(WorkloadError, match="no step with a call"):
        simulated(Loners(1, 4, AGENTS), PROMPT, pace=0.0, warmup=4)
