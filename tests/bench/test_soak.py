from __future__ import annotations

import os
from itertools import count
from pathlib import Path
from random import Random
from time import process_time
from typing import Any

import msgspec

from bench.soak import drift, figures
from bench.soak.cores import Cores
from bench.soak.figures import MIB, Figures, checks
from bench.soak.page import FIGURES, MARKS, NOT_RUN, PAGE, renewed
from bench.soak.plot import draw
from bench.soak.result import Result, conditions, read, write
from bench.soak.rig import BLOCK_TOKENS
from bench.soak.samples import Sample
from bench.soak.simulation import Simulation, tokens_of
from bench.soak.speak import Said
from scalesim_adapters.emulator.chain import Chain, published
from scalesim_daemon.gate import Gate
from scalesim_daemon.population import Population
from scalesim_daemon.wire import parse_all

QUIET = Sample(
    *(0.0, 100 * MIB, 50, 1_000_000, 30, 0.01, 3 * MIB, 450, 0.02, 400, 400),
    *(0, 0, 20, 0, 0, 0, 10, 10),
)


def test_what_simulations_say_is_taken_and_who_has_gone_is_unknown() -> None:
    names, random = count(), Random(1)
    one = Simulation("village1", "village1", 30, names, random)
    guest = Simulation("village1", "village1/visitor2", 5, names, random, remembers=False)
    gate, population, seqs = Gate(), Population(), {one.source: count(), guest.source: count()}
    seen, called = set[str](), 0

    def say(who: Simulation, events: Any) -> None:
        assert parse_all(events)[1] == []
        verdict = gate.admit(who.source, next(seqs[who.source]), list(events))
        assert verdict.error is None and not verdict.resync
        population.apply(verdict.admitted, 0.0)
        seen.update(event["agent"] for event in events if event["type"] == "agent.registered")

    for who in (one, guest):
        say(who, who.opening())
    for _ in range(50):
        step = one.step(60, churn=2)
        assert 60 <= len(step.first) + len(step.rest) <= 70
        say(one, step.first)
        for agent in step.calling:
            say(one, one.called(agent))
            called += 1
        say(one, step.rest)
        say(guest, guest.step(10, churn=0).first)
    say(one, one.snapshot())
    assert len(population.agents) == len(one) + len(guest) == 35
    assert population.in_flight() == 0
    assert one.gone == 100 and len(seen) == 135
    assert called


def _rising(by: float, minutes: float = 30.0) -> list[Sample]:
    """Samples of a run in which resident memory grows by so many MiB an hour, and jumps about."""
    random = Random(1)
    return [
        msgspec.structs.replace(
            QUIET,
            seconds=seconds,
            rss=round(QUIET.rss + by * MIB * seconds / 3600 + random.gauss(0, MIB / 4)),
            gone=round(60 * seconds),
        )
        for seconds in (2.0 * number for number in range(1, round(minutes * 30)))
    ]


def _verdicts(
    samples: list[Sample], said: Said, compared: int = 30, heard: int = 9_000_000
) -> dict[str, bool | None]:
    found = figures.figures(samples, said, empty=MIB, drift=(), heard=heard)
    return {one.name: one.held for one in checks(samples, said, found, MIB, 5_000.0, compared)}


SAID = Said(seconds=1800.0, sent=9_000_000)


def test_memory_is_flat_or_not() -> None:
    name = "resident memory, MiB per hour"
    flat, leak = (
        figures.slope(_rising(0), lambda one: one.rss),
        figures.slope(_rising(40), lambda one: one.rss),
    )
    assert flat is not None and leak is not None
    assert flat.low < 0 < flat.high
    assert leak.low < 40 * MIB < leak.high
    # 216,000 names went in an hour: 20.6 MiB are the most.
    assert _verdicts(_rising(0), SAID)[name] is True
    assert _verdicts(_rising(40), SAID)[name] is False
    assert _verdicts(_rising(40, minutes=2), SAID)[name] is None


def test_all_holds_of_a_quiet_run_and_each_fault_is_named(tmp_path: Path) -> None:
    samples = _rising(0)
    assert all(_verdicts(samples, SAID).values())
    last = samples[-1]
    for fault, name in {
        "tasks": "tasks, more than at first",
        "files": "files, more than at first",
        "redis_keys": "Redis, share of its bound in keys",
        "redis_bytes": "Redis, share of its bound in bytes",
        "mirror_lag": "lag of the mirror, p99, ms: median",
        "longest_cycle": "longest cycle, ms",
    }.items():
        worse = [
            msgspec.structs.replace(one, **{fault: 10 * getattr(one, fault) + 10}) if place > 450 else one
            for place, one in enumerate(samples)
        ]
        assert [key for key, held in _verdicts(worse, SAID).items() if not held] == [name]
    rows = figures.course(samples)
    assert len(rows) == 60 and rows[0]["files"] == QUIET.files
    refused = [*samples, msgspec.structs.replace(last, not_taken=1)]
    assert _verdicts(refused, SAID)["events refused, gaps, repetitions"] is False
    slow = msgspec.structs.replace(SAID, sent=8_000_000)
    assert _verdicts(samples, slow, heard=8_000_000)["events per second"] is False
    assert _verdicts(samples, SAID, heard=8_999_999)["events sent and not heard"] is False
    assert _verdicts(samples, SAID, compared=0)["comparisons with the engines"] is False
    draw(samples, MIB, tmp_path / "soak.svg")
    assert "resident memory" in (tmp_path / "soak.svg").read_text()


def test_a_run_is_kept_and_shown_with_its_conditions(tmp_path: Path) -> None:
    samples = _rising(0, minutes=2)
    found = figures.figures(samples, SAID, empty=MIB, drift=(), heard=9_000_000)
    held = conditions(seed=3, load_before=0.25, cores_used={"daemon": 0.8, "engine0": 0.1}, waited=0.125)
    checked = list(checks(samples, SAID, found, MIB, 5_100.0, compared=2))
    write(tmp_path / "soak.json", Result(held, found, checked, SAID, [], figures.course(samples)))
    page = renewed("head {}of yore{} tail".format(*MARKS), read(tmp_path / "soak.json"))
    assert page.startswith("head ") and page.endswith(" tail") and "of yore" not in page
    assert "seed 3" in page and "daemon 0.80, engine0 0.10" in page and "waited for a core 12.5%" in page
    assert "| events per second | 5,000 | >= 4,998 | held |" in page
    assert "| resident memory, MiB per hour |  | <= 20.6 | too short to say |" in page
    assert NOT_RUN in renewed(page, None)


def test_the_page_is_as_its_figures_are() -> None:
    root = Path(__file__).parents[2]
    page, kept = (root / PAGE).read_text(encoding="utf-8"), root / FIGURES
    assert renewed(page, read(kept) if kept.exists() else None) == page, "run make results"


def test_who_uses_a_core_and_who_waits_for_one_is_seen() -> None:
    cores, until = Cores({"me": os.getpid()}), process_time() + 0.1
    while process_time() < until:
        pass
    assert cores.used()["me"] > 0
    assert 0 <= cores.waited("me") < 1.5


def test_the_last_line_has_what_was_asked_for() -> None:
    assert list(Figures.__struct_fields__) == [
        *("minutes", "events_per_second", "rss_slope_mib_per_hour", "redis_bytes_bound_share"),
        *("fds_growth", "tasks_growth", "divergences", "lost_events"),
    ]


def test_a_view_that_is_wrong_by_a_block_is_found() -> None:
    key = "village1/agent0000001"
    chain = Chain(BLOCK_TOKENS, tokens_of(*key.split("/")))
    truth = {published(one): 1 for one in chain.hashes[:4]}

    def state(resident: int, known: bool = True) -> dict[str, Any]:
        return {"name": "one", "known": known, "unknown_why": "lost", "blocks": {"resident": resident}}

    def agent(blocks: int, there: int) -> dict[str, Any]:
        return {"key": key, "engines": {"one": {"blocks": blocks, "resident_blocks": there}}}

    whole = len(chain.hashes)
    others = [{"key": "village1/nobody", "engines": {}}, agent(2, 1)]
    assert drift.differences(truth, state(4), [agent(whole, 4), *others]) == []
    assert drift.differences(truth, state(5), []) == ["one: 5 blocks, has 4"]
    assert drift.differences(truth, state(4), [agent(whole, 3)]) == [f"one: {key} 3 blocks, has 4"]
    assert drift.differences(truth, state(4, known=False), []) == ["one: not known: lost"]
