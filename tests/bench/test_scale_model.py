"""What is calculated of a fleet: what grows with what, who is relieved by what, and that parts make the whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.scale.costs import FILE, costs_of, medians, read
from bench.scale.model import (
    GIB,
    Fleet,
    Limits,
    Use,
    daemon_cpu,
    daemon_work,
    first_limit,
    heard_changes,
    known_agents,
    largest,
    read_changes,
    shard_bytes,
    shard_work,
    total,
    uses,
)
from bench.scale.steps import STEPS, Step, in_buckets, in_cells, largest_fleet, together

ROOT = Path(__file__).parents[2]
COSTS = costs_of(medians(read(ROOT / FILE)))
MEASURED = Limits()
# What is equal but for the order of sums.
SLACK = 1 + 1e-9

fleets = st.builds(
    Fleet,
    engines=st.integers(1, 2_000),
    agents=st.integers(0, 10**8),
    simulations=st.integers(1, 3_000),
    cells=st.integers(1, 200),
    active=st.floats(0, 1, allow_subnormal=False),
    events=st.floats(0, 10, allow_subnormal=False),
    ticks=st.floats(0, 10, allow_subnormal=False),
    decisions=st.floats(0, 10, allow_subnormal=False),
    moves=st.floats(0, 10, allow_subnormal=False),
    renewals=st.floats(0.1, 2),
    prefix_bytes=st.floats(0, 10_000, allow_subnormal=False),
    driven=st.integers(1, 8),
    watched=st.integers(1, 100),
    doors=st.integers(1, 2_000),
    buckets=st.integers(1, 2_000),
    shards=st.integers(1, 100),
    pause=st.floats(0.0005, 1),
)
factors = st.integers(1, 10)
CASES = settings(max_examples=40, deadline=None)


def shares(fleet: Fleet, limits: Limits = MEASURED) -> dict[str, float]:
    return {use.name: use.share for use in uses(fleet, COSTS, limits)}


@CASES
@given(
    fleets,
    factors,
    st.sampled_from(["agents", "active", "events", "decisions", "moves", "renewals", "watched"]),
)
def test_more_of_anything_needs_no_less(fleet: Fleet, factor: int, what: str) -> None:
    more = shares(replace(fleet, **{what: factor * getattr(fleet, what)}))
    assert all(more[name] * SLACK >= share for name, share in shares(fleet).items())


@CASES
@given(fleets, factors)
def test_shards_relieve_memory_and_slots_and_no_daemon(fleet: Fleet, factor: int) -> None:
    """What all shards are told, the bell, may become more for each: there it is two rings or one."""
    more = replace(fleet, shards=factor * fleet.shards)
    before, after = shard_work(fleet, COSTS), shard_work(more, COSTS)
    assert all(after[name].cpu <= before[name].cpu * SLACK for name in before if name != "the bell")
    assert shares(more)["Redis, memory"] <= shares(fleet)["Redis, memory"] * SLACK
    assert daemon_cpu(more, COSTS) == daemon_cpu(fleet, COSTS)


@CASES
@given(fleets, factors)
def test_one_slot_stays_on_one_shard(fleet: Fleet, factor: int) -> None:
    hot = replace(fleet, simulations=1, buckets=1, shards=1)
    divided = {"decisions", "leases", "homes", "the bell"}
    before, after = shard_work(hot, COSTS), shard_work(replace(hot, shards=factor), COSTS)
    assert all(after[name] == before[name] for name in before if name not in divided)


@CASES
@given(fleets, factors)
def test_cells_of_the_same_size_need_the_same(fleet: Fleet, factor: int) -> None:
    """A cell costs what it costs, however many there are beside it."""
    many = replace(
        fleet,
        cells=fleet.cells * factor,
        agents=fleet.agents * factor,
        simulations=fleet.simulations * factor,
        engines=fleet.near * fleet.cells * factor,
    )
    assert shares(many) == pytest.approx(shares(fleet))


@CASES
@given(fleets, factors)
def test_cells_relieve_everybody(fleet: Fleet, factor: int) -> None:
    """Where each simulation is in one cell and engines divide evenly."""
    one = replace(fleet, cells=1, simulations=60 * fleet.cells, engines=fleet.near * 60 * fleet.driven)
    for name, share in shares(replace(one, cells=factor if 60 % factor == 0 else 1)).items():
        assert share <= shares(one)[name] * SLACK


@CASES
@given(fleets, factors)
def test_doors_relieve_the_one_who_hears_most(fleet: Fleet, factor: int) -> None:
    assert heard_changes(replace(fleet, doors=factor * fleet.doors)) <= heard_changes(fleet) * SLACK


@CASES
@given(fleets, factors)
def test_buckets_relieve_who_reads(fleet: Fleet, factor: int) -> None:
    more = replace(fleet, buckets=factor * fleet.buckets)
    assert read_changes(more) <= read_changes(fleet)
    assert known_agents(more) <= known_agents(fleet) * SLACK


@CASES
@given(fleets, factors)
def test_who_waits_reads_no_more_often(fleet: Fleet, factor: int) -> None:
    patient = replace(fleet, pause=factor * fleet.pause)
    assert all(shares(patient)[name] <= share * SLACK for name, share in shares(fleet).items())


@CASES
@given(fleets, st.floats(0.1, 10))
def test_a_faster_core_is_used_less_and_nothing_else_is(fleet: Fleet, core: float) -> None:
    before, after = shares(fleet), shares(fleet, Limits(core=core))
    for name, share in before.items():
        assert after[name] == pytest.approx(share / core if name.endswith("CPU") else share)


@CASES
@given(fleets)
def test_parts_make_the_whole(fleet: Fleet) -> None:
    found = {use.name: use.used for use in uses(fleet, COSTS)}
    assert found["Redis, CPU"] == pytest.approx(sum(one.cpu for one in shard_work(fleet, COSTS).values()))
    assert found["Redis, memory"] == pytest.approx(sum(shard_bytes(fleet, COSTS).values()) / GIB)
    assert found["daemon, CPU"] == pytest.approx(sum(daemon_cpu(fleet, COSTS).values()))


@CASES
@given(fleets)
def test_what_daemons_ask_is_what_redis_is_asked(fleet: Fleet) -> None:
    """On one shard, where all daemons are alike: each hears its part of one simulation."""
    even = replace(fleet, cells=1, simulations=1, buckets=1, shards=1, engines=fleet.driven * fleet.engines)
    alike = replace(even, doors=even.daemons, ticks=0.0)
    asked, done = daemon_work(alike, COSTS), shard_work(alike, COSTS)
    assert asked.keys() == done.keys()
    for name, one in asked.items():
        assert done[name].received == pytest.approx(alike.daemons * one.received, rel=1e-9, abs=1e-6)
        assert done[name].sent == pytest.approx(alike.daemons * one.sent, rel=1e-9, abs=1e-6)


@CASES
@given(fleets)
def test_who_is_alone_tells_nobody(fleet: Fleet) -> None:
    alone = replace(fleet, engines=fleet.driven, cells=1)
    assert (alone.daemons, read_changes(alone)) == (1, 0)
    assert shard_work(alone, COSTS).keys() == {"dues written", "clocks", "decisions"}
    assert known_agents(alone) == pytest.approx(alone.agents)


@settings(CASES, max_examples=15)
@given(fleets)
def test_the_largest_number_of_agents_is_the_last_that_fits(fleet: Fleet) -> None:
    def fits(agents: int) -> bool:
        return first_limit(uses(replace(fleet, agents=agents), COSTS)).share <= 1

    most = largest(fleet, COSTS)
    assert fits(most) or most == 0
    assert not fits(most + 1) or most == 10**12


def test_what_is_used_most_is_the_first_limit() -> None:
    found = (Use("a", 1, 10, ""), Use("b", 3, 4, ""), Use("c", 30, 100, ""))
    assert first_limit(found).name == "b"


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_a_step_has_as_many_agents_on_each_engine(step: Step) -> None:
    assert step.fleet.agents == 10_000 * step.fleet.engines


def test_of_ten_million_agents_each_daemon_knows_its_cells() -> None:
    known = [known_agents(fleet(10_000_000)) for fleet in (together, in_cells, in_buckets)]
    assert known == pytest.approx([10_000_000, 100_000, 109_900])


def test_a_fleet_has_a_greatest_size() -> None:
    most = largest_fleet(COSTS)
    assert most > 1
    for engines, fits in ((most, True), (most + 1, False)):
        assert (first_limit(uses(together(10_000 * engines), COSTS)).share <= 1) is fits
    assert total(shard_work(in_cells(10_000_000), COSTS)).cpu < 1
