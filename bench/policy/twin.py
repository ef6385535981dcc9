"""The experiment on the real engine, for the simulated one: its workloads, steps, prompts, pool and tier."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Final

import msgspec

from bench.demo.prompts import FRESH_TOKENS, OUTPUT_TOKENS, PREFIX_TOKENS
from bench.engine.classes import AGENTS, CLASSES
from bench.engine.programme import BEYOND
from bench.engine.result import Result
from bench.policy.fitted import fitted
from bench.policy.scenes import Scene, scripted
from bench.policy.simulated import Machine
from scalesim_daemon.whatif.costs import CPU_90M
from scalesim_daemon.whatif.workload import Prompt

# Where nothing was measured yet.
STEPS: Final = 24
WARMUP: Final = 10
SEEDS: Final = range(1, 11)
BATCH_TOKENS: Final = 2048
"""`max_num_batched_tokens` of a vLLM 0.32.0 server on a CPU that isn't told otherwise (vllm/engine/arg_utils.py)."""


def twin(measured: Result | None) -> Machine:
    """Return the machine on which the calls of a measured experiment are simulated, at its costs where these can be
    fitted."""
    if measured is None:
        return _machine(STEPS, WARMUP, SEEDS)
    said = measured.conditions
    machine = _machine(said.steps, said.warmup, range(said.seed, said.seed + said.repetitions))
    return replace(machine, costs=fitted(machine, measured) or machine.costs)


def _machine(steps: int, warmup: int, seeds: range) -> Machine:
    return Machine(
        costs=msgspec.structs.replace(CPU_90M, batch_tokens=BATCH_TOKENS),
        agents=AGENTS,
        prompt=Prompt(0, PREFIX_TOKENS, FRESH_TOKENS, OUTPUT_TOKENS),
        # The pool and the tier are measured in whole prompts there.
        footprint=PREFIX_TOKENS + FRESH_TOKENS,
        steps=steps - warmup,
        seeds=seeds,
        classes={name: partial(scene, name, warmup) for name in CLASSES},
    )


def scene(name: str, warmup: int, agents: int, steps: int, seed: int) -> Scene:
    """Draw a class of workloads as the experiment does; there are always so many `agents` in it."""
    workload = CLASSES[name](seed, warmup + steps + BEYOND)
    # One more for clock value 0.
    return scripted(workload, 1 + warmup + steps, 1 + warmup)
