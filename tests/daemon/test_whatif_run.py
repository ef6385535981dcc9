"""Whole simulations: the daemon's own planner gains where it should, harms nowhere, and repeats itself."""

import math
from dataclasses import replace

import msgspec
import pytest
import simpy
from hypothesis import given, settings
from hypothesis import strategies as st

from scalesim_adapters.dues import DueTable
from scalesim_client.events import PlanDeclared
from scalesim_daemon.whatif.costs import CPU_90M, H100_QWEN_7B
from scalesim_daemon.whatif.engine import Engine
from scalesim_daemon.whatif.memory import Device
from scalesim_daemon.whatif.order import ByRecency
from scalesim_daemon.whatif.run import ALONE, PLUGIN, SIDECAR, Figures, Setup, simulate
from scalesim_daemon.whatif.sidecar import Sidecar
from scalesim_daemon.whatif.workload import Drawn, Foresight, Gaps, Prompt, Stranger, WorkloadError

VILLAGE = Drawn(agents=25, steps=20, pace=1.0, concurrency=4, prompt=Prompt(128, 1024, 16, 8))
BY_DUE = Setup(by_due=True)
EXACT = Foresight()
POPULATION = 25 * 1024


def played(
    setup: Setup,
    drawn: Drawn = VILLAGE,
    foresight: Foresight = EXACT,
    host: int = 0,
    memory: int | None = None,
) -> Figures:
    return simulate(drawn.workload(foresight), CPU_90M, setup, host_tokens=host, device_tokens=memory)


@pytest.mark.parametrize("setup", [ALONE, SIDECAR, PLUGIN])
def test_equal_arguments_give_equal_figures(setup: Setup) -> None:
    assert played(setup, host=6400) == played(setup, host=6400)


def test_seeds_differ() -> None:
    assert played(ALONE) != played(ALONE, replace(VILLAGE, seed=2))


def test_where_everything_fits_nothing_is_computed_twice() -> None:
    figures = played(ALONE, memory=2 * POPULATION)
    assert figures.recomputed == 0
    assert figures.cached == pytest.approx(1 - 16 / 1168)
    assert played(PLUGIN, memory=2 * POPULATION).makespan == pytest.approx(figures.makespan)


def test_prefetch_and_eviction_by_due_each_gain_and_together_more() -> None:
    alone, sidecar, by_due, plugin = map(played, (ALONE, SIDECAR, BY_DUE, Setup(prefetch=True, by_due=True)))
    assert alone.makespan > 1.2 * sidecar.makespan
    assert alone.makespan > 1.2 * by_due.makespan
    assert min(sidecar.makespan, by_due.makespan) > 1.2 * plugin.makespan
    assert alone.cached < min(sidecar.cached, by_due.cached) < plugin.cached
    assert sidecar.prefetches_used > 5 * sidecar.prefetches_wasted
    assert sidecar.order is not None and sidecar.order > 0.95


def test_without_pause_there_is_nothing_to_prefetch_in() -> None:
    eager = replace(VILLAGE, pace=0.0)
    assert played(SIDECAR, eager).makespan == pytest.approx(played(ALONE, eager).makespan, rel=0.05)


def test_prediction_is_worth_something_and_the_lack_of_it_costs_little() -> None:
    spans = [played(PLUGIN, foresight=Foresight(misled=misled)).makespan for misled in (0.0, 0.5, 1.0)]
    assert spans == sorted(spans)
    assert spans[0] < 0.8 * spans[2]
    assert spans[2] < 1.05 * played(ALONE).makespan


def test_on_a_cyclic_simulation_recency_is_always_wrong() -> None:
    cyclic = replace(VILLAGE, gaps=Gaps.PERIODIC, pace=0.0)
    shared = 128 / 1168
    assert played(ALONE, cyclic).cached == pytest.approx(shared, abs=0.01)
    assert played(BY_DUE, cyclic).cached > shared + 0.2


def test_a_tier_that_duplicates_nothing_holds_more() -> None:
    eager = replace(VILLAGE, pace=0.0)
    half = POPULATION // 2
    copies = played(replace(BY_DUE, host_exclusive=False), eager, host=half)
    exclusive = played(replace(BY_DUE, host_exclusive=True), eager, host=half)
    assert exclusive.recomputed < copies.recomputed
    assert exclusive.makespan < copies.makespan


def test_a_tier_for_everybody_leaves_nothing_to_gain() -> None:
    figures = played(ALONE, host=2 * POPULATION)
    assert figures.recomputed == 0
    assert figures.loaded > 0


def test_what_a_prefetch_brought_from_the_host_is_no_waste() -> None:
    figures = simulate(
        Drawn(agents=50, steps=10).workload(Foresight()),
        H100_QWEN_7B,
        PLUGIN,
        device_tokens=20_000,
        host_tokens=100_000,
    )
    assert figures.prefetches > 20
    assert figures.prefetches_wasted < 0.1 * figures.prefetches


@settings(max_examples=60, deadline=None)
@given(
    agents=st.integers(1, 12),
    active=st.sampled_from([0.2, 0.5, 1.0]),
    private=st.integers(0, 200),
    output=st.integers(1, 40),
    memory=st.integers(12, 60),
    host=st.integers(0, 20),
    concurrency=st.sampled_from([None, 1, 3]),
    pace=st.sampled_from([0.0, 0.3]),
    setup=st.builds(Setup, st.booleans(), st.booleans(), st.booleans()),
    misled=st.sampled_from([0.0, 0.7]),
)
def test_any_simulation_comes_to_an_end_with_sound_figures(
    agents: int,
    active: float,
    private: int,
    output: int,
    memory: int,
    host: int,
    concurrency: int | None,
    pace: float,
    setup: Setup,
    misled: float,
) -> None:
    drawn = Drawn(agents, 12, active, Gaps.RANDOM, pace, concurrency, Prompt(40, private, 16, output))
    workload = drawn.workload(Foresight(misled=misled))
    figures = simulate(workload, CPU_90M, setup, device_tokens=memory * 32, host_tokens=host * 32)
    assert figures.calls == sum(map(len, workload.steps[workload.warmup :]))
    assert 0 <= figures.cached < 1
    assert figures.ttft_mean > 0 and figures.makespan > 12 * pace
    assert figures.prefetches_used + figures.prefetches_wasted <= figures.prefetches
    ideal = simulate(workload, CPU_90M, ALONE, device_tokens=10**6)
    assert ideal.recomputed == 0
    assert figures.makespan > 0.99 * ideal.makespan


@pytest.mark.parametrize(
    ("memory", "host", "said"), [(1024, 0, "a call needs"), (9600, 100, "host_token_seconds")]
)
def test_what_cant_be_simulated_is_explained(memory: int, host: int, said: str) -> None:
    costs = msgspec.structs.replace(CPU_90M, host_token_seconds=None)
    with pytest.raises(WorkloadError, match=said):
        simulate(VILLAGE.workload(Foresight()), costs, ALONE, device_tokens=memory, host_tokens=host)


def test_a_thousand_agents_for_a_hundred_steps_come_to_an_end() -> None:
    workload = Drawn(agents=1000, steps=100).workload(Foresight())
    figures = simulate(workload, H100_QWEN_7B, ALONE, device_tokens=200_000)
    assert figures.calls == pytest.approx(20_000, rel=0.05)


# Strangers


EAGER = replace(VILLAGE, pace=0.0).workload(EXACT)
PASSING = tuple(Stranger(0.5 * number, 400, 8) for number in range(200))


def test_all_that_is_said_is_foreseen_before_anybody_looks() -> None:
    env = simpy.Environment()
    engine = Engine(env, CPU_90M, Device(100, ByRecency()))
    sidecar = Sidecar(env, engine, CPU_90M, DueTable(math.inf), {}, prefetch=False, shared=False)
    sidecar.say([PlanDeclared(agents=[f"a{place}" for place in range(2500)])])
    assert len(sidecar.population.board) == 2500


def test_strangers_take_time_and_memory_and_are_not_counted() -> None:
    among = simulate(replace(EAGER, strangers=PASSING), CPU_90M, ALONE)
    by_itself = simulate(EAGER, CPU_90M, ALONE)
    assert among.calls == by_itself.calls
    assert among.makespan > 1.1 * by_itself.makespan
    assert among.cached <= by_itself.cached


def test_who_shares_an_engine_with_strangers_prefetches_less() -> None:
    calm = VILLAGE.workload(EXACT)
    among = simulate(replace(calm, strangers=PASSING), CPU_90M, SIDECAR)
    assert 0 < among.prefetched_tokens < simulate(calm, CPU_90M, SIDECAR).prefetched_tokens / 2


def test_a_stranger_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(WorkloadError, match="needs 9024 tokens"):
        simulate(replace(EAGER, strangers=(Stranger(0.0, 9000, 10),)), CPU_90M, ALONE, device_tokens=6400)
