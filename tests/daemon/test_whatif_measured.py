"""The simulator against a real engine.

The seconds below were measured in single runs on vLLM 0.32.0's CPU build (one core, 90 M parameters, bfloat16), with a
prototype of what is simulated here: 25 agents, prompts of 128 shared, 1,024 private and 16 new tokens, 8 tokens of
answer, gaps of 1 to 9 steps, at most 4 calls at a time, 90 calls in 20 steps; a pool of 300 blocks of 32 tokens, 9 of
the agents; where there is a host tier it has copies for half of them, or all. Who called when wasn't kept: the
simulated seconds are the mean of several seeds, for 90 calls. The cost model rests on the law of that engine, on the
run in which everything fits, and on no other row.
"""

from dataclasses import replace
from statistics import fmean

import pytest

from scalesim_daemon.whatif.costs import CPU_90M
from scalesim_daemon.whatif.run import ALONE, SIDECAR, Setup, simulate
from scalesim_daemon.whatif.workload import Drawn, Foresight, Prompt

TOLERANCE = 0.15
SEEDS = range(1, 7)
STEPS, CALLS = 20, 90
RUN = Drawn(agents=25, steps=STEPS, concurrency=4, prompt=Prompt(128, 1024, 16, 8))
HALF = 400 * 32
ALL = 1000 * 32

BY_DUE = Setup(by_due=True)
BOTH = Setup(by_due=True, prefetch=True)
EXACT, HALF_OFF, SHUFFLED = Foresight(), Foresight(error=0.5), Foresight(misled=1.0)

# What: setup, pace, host tokens, foresight, measured seconds with pauses.
ROWS = {
    "engine alone": (ALONE, 0.0, 0, EXACT, 46.7),
    "prefetch, pace 0.5": (SIDECAR, 0.5, 0, EXACT, 46.4),
    "prefetch, pace 1": (SIDECAR, 1.0, 0, EXACT, 51.0),
    "prefetch of two steps, pace 2": (SIDECAR, 2.0, 0, EXACT, 54.4),
    "eviction by due": (BY_DUE, 0.0, 0, EXACT, 33.3),
    "both, pace 0.5": (BOTH, 0.5, 0, EXACT, 34.6),
    "both, pace 1": (BOTH, 1.0, 0, EXACT, 38.65),
    "both, two steps, pace 2": (BOTH, 2.0, 0, EXACT, 51.0),
    "both, dues off by half": (BOTH, 1.0, 0, HALF_OFF, 46.7),
    "both, dues shuffled": (BOTH, 1.0, 0, SHUFFLED, 57.1),
    "host tier of half, by recency": (ALONE, 0.0, HALF, EXACT, 45.3),
    "host tier of all, by recency": (ALONE, 0.0, ALL, EXACT, 6.5),
    "host tier of half, both by due": (BY_DUE, 0.0, HALF, EXACT, 26.1),
    "that and prefetch, pace 0.5": (BOTH, 0.5, HALF, EXACT, 27.2),
    "that and prefetch, pace 1": (BOTH, 1.0, HALF, EXACT, 33.85),
    "that and prefetch, pace 2": (BOTH, 2.0, HALF, EXACT, 48.8),
    "that, dues off by half": (BOTH, 1.0, HALF, HALF_OFF, 40.9),
    "that, dues shuffled": (BOTH, 1.0, HALF, SHUFFLED, 51.0),
    "host tier of half and prefetch": (SIDECAR, 1.0, HALF, EXACT, 47.3),
}


def seconds(setup: Setup, pace: float, host: int, foresight: Foresight, memory: int | None = None) -> float:
    """Return the simulated seconds of 90 calls, with pauses."""
    spans = []
    for seed in SEEDS:
        workload = replace(RUN, pace=pace, seed=seed).workload(foresight)
        figures = simulate(workload, CPU_90M, setup, device_tokens=memory, host_tokens=host)
        spans.append((figures.makespan - STEPS * pace) / figures.calls * CALLS)
    return fmean(spans) + STEPS * pace


def test_the_cost_model_fits_the_run_that_it_was_made_from() -> None:
    assert seconds(ALONE, 0.0, 0, EXACT, memory=10**6) == pytest.approx(5.26, rel=0.03)


@pytest.mark.parametrize("row", ROWS)
def test_what_was_measured_is_foretold(row: str) -> None:
    setup, pace, host, foresight, measured = ROWS[row]
    foretold = seconds(setup, pace, host, foresight)
    print(f"{row}: {foretold:.1f} s, measured {measured:.1f} s: {foretold / measured - 1:+.1%}")
    assert foretold == pytest.approx(measured, rel=TOLERANCE)
