"""The measured experiment, simulated: its calls, its pool and tier, and costs that are fitted to its ends."""

from dataclasses import replace

import msgspec
import pytest

from bench.engine import classes as measured
from bench.engine.places import POOL_TOKENS, TIER_TOKENS
from bench.engine.programme import BEYOND
from bench.engine.result import Conditions, Numbers, Result
from bench.engine.variants import FULL
from bench.policy.fitted import ENDS, fitted
from bench.policy.twin import WARMUP, scene, twin
from bench.policy.variants import VARIANTS

AGENTS, STEPS = 25, 6
CONDITIONS = Conditions(
    engine="vLLM",
    model="mid",
    agents=AGENTS,
    prompt_tokens=1088,
    output_tokens=16,
    pool_share=0.25,
    pool_tokens=6800,
    tier_share=0.5,
    steps=WARMUP + STEPS,
    warmup=WARMUP,
    repetitions=1,
    seed=4,
    cores=2,
    played={"interaction": "2026-11-25, commit 1234567"},
    active={},
    flags="",
)


def numbers(makespan: float, computed: int) -> Numbers:
    return Numbers(
        calls=30,
        makespan=makespan,
        makespan_ratio=1.0,
        makespan_ratio_low=1.0,
        makespan_ratio_high=1.0,
        ttft_mean=1.0,
        ttft_mean_ratio=1.0,
        ttft_p95=1.0,
        ttft_p95_ratio=1.0,
        cached_share=0.5,
        recomputed_tokens=computed,
        recomputed_tokens_ratio=1.0,
        prefetched_tokens=0,
        failed_requests=0,
    )


@pytest.mark.parametrize("name", measured.CLASSES)
def test_the_twin_plays_the_calls_of_the_real_engine(name: str) -> None:
    course = list(measured.CLASSES[name](2, STEPS + WARMUP + BEYOND).steps())[: STEPS + WARMUP]
    drawn = scene(name, WARMUP, AGENTS, STEPS, 2)
    assert [list(callers) for callers in drawn.schedule[1 : drawn.played]] == [
        [call.agent for call in step.calls] for step in course
    ]


def test_the_twin_has_its_memory_and_its_variants() -> None:
    machine = twin(None)
    assert machine.device_tokens(AGENTS) == POOL_TOKENS
    assert machine.host_tokens(AGENTS) == TIER_TOKENS
    assert set(FULL) <= set(VARIANTS)


def test_costs_are_found_again_from_the_ends() -> None:
    machine = twin(Result(CONDITIONS, {}))
    assert (machine.steps, list(machine.seeds), machine.costs.name) == (STEPS, [4], "cpu-90m")
    true = msgspec.structs.replace(
        machine.costs,
        prefill_token_seconds=0.0003,
        step_seconds=0.4 * machine.costs.step_seconds,
        decode_request_seconds=0.4 * machine.costs.decode_request_seconds,
    )
    classes: dict[str, dict[str, Numbers]] = {}
    for name, draw in machine.classes.items():
        drawn = draw(AGENTS, STEPS, 4)
        played = {end: replace(machine, costs=true).play(VARIANTS[end], drawn, 4) for end in ENDS}
        classes[name] = {end: numbers(figures.makespan, figures.computed) for end, figures in played.items()}
    found = fitted(machine, Result(CONDITIONS, classes))
    assert found is not None and found.name == "cpu-90m-fitted"
    assert found.prefill_token_seconds == pytest.approx(true.prefill_token_seconds, rel=0.1)
    assert found.step_seconds == pytest.approx(true.step_seconds, rel=0.1)
    assert twin(Result(CONDITIONS, classes)).costs == found
    # That class needs recorded requests, which the machine may be without.
    assert fitted(machine, Result(CONDITIONS, classes | {"mixed": classes["path"]})) == found


def test_where_more_computing_took_no_longer_nothing_is_fitted() -> None:
    classes = {"path": {"alone": numbers(10.0, 50_000), "ceiling": numbers(11.0, 3000)}}
    assert fitted(twin(None), Result(CONDITIONS, classes)) is None
    assert fitted(twin(None), Result(CONDITIONS, {"path": {"alone": numbers(10.0, 50_000)}})) is None
