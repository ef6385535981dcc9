from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from bench.daemon import choose, growth, hot, ingest
from bench.daemon.apart import rounds_apart
from bench.daemon.figures import PARTS, TARGETS, Round, Target, summed_up
from bench.daemon.rig import read_bare
from bench.daemon.said import activities, call, messages, snapshot, speaking
from scalesim_client.codec import decode
from scalesim_daemon.wire import parse_all


def test_each_round_is_summed_up_and_held_against_its_target() -> None:
    found = summed_up([{"start_over_bare": value} for value in (4.0, 1.0, 2.0)])["start_over_bare"]
    assert (found.median, found.least, found.greatest) == (2.0, 1.0, 4.0)
    assert TARGETS["start_over_bare"].met(found.median)
    assert (str(Target(0.5, at_least=True)), Target(0.5, at_least=True).met(0.4)) == (">= 0.5", False)
    assert len(TARGETS) == 8
    assert len(PARTS) == 6


def test_what_is_said_is_what_the_daemon_takes() -> None:
    for payload in (*messages(activities(10, 25, 1) + call(3, 7), 10), *snapshot(1500, 1)):
        events, refused = parse_all(decode(payload)[1])
        assert events
        assert not refused


def test_a_choice_is_made_among_few_agents(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in {"AGENTS": 400, "RESIDENT": 100, "CHANGES": 4, "REPEATS": 1}.items():
        monkeypatch.setattr(choose, name, number)
    rounds = list(choose.choose(2, 1))
    assert all(one["select_over_argpartition"] > 0 for one in rounds)
    assert all(one["cycle_over_argpartition"] > 0 for one in rounds)


def test_a_population_lives_by_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in {"FEW": 20, "MANY": 40, "STEP": 10, "CALLS": 20}.items():
        monkeypatch.setattr(growth, name, number)
    assert [one["event_cost_growth_1k_to_1m"] > 0 for one in growth.growth(2, 1)] == [True, True]


def test_a_flood_waits_for_whoever_reads_it(tmp_path: Path) -> None:
    with speaking("flood", f"ipc://{tmp_path}/flood", 10, 200, 10, 1):
        assert read_bare(f"ipc://{tmp_path}/flood", 21) > 0
    with speaking("flood", f"ipc://{tmp_path}/flood", 10, 200, 10, 1):
        assert asyncio.run(ingest.time_daemon(tmp_path, 21, {"enabled": False})) > 0


def process_of_each(rounds: int, seed: int) -> Iterator[Round]:
    for number in range(rounds):
        yield {"process": os.getpid(), "seed": seed + number}
    if rounds > 2:
        raise ValueError("more than it can")


def test_a_part_is_measured_in_a_process_of_its_own() -> None:
    first, second = rounds_apart(process_of_each, 2, 1)
    assert (first["seed"], second["seed"]) == (1, 2)
    assert first["process"] == second["process"] != os.getpid()
    found = []
    with pytest.raises(RuntimeError, match="not all could be measured"):
        for one in rounds_apart(process_of_each, 3, 1):
            found.append(one)
    assert len(found) == 3


def test_of_each_reader_the_least_time_counts() -> None:
    times = {"one": iter((3.0, 1.0, 2.0)), "two": iter((5.0, 6.0, 4.0))}
    readers = {name: partial(next, some) for name, some in times.items()}
    assert ingest._least(readers) == {"one": 1.0, "two": 4.0}


def test_the_profile_says_what_an_event_costs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hot, "EVENTS", {100: 2000})
    monkeypatch.setattr(hot, "AGENTS", 50)
    monkeypatch.setattr("sys.argv", ["hot"])
    hot.main()
    *profile, last = capsys.readouterr().out.strip().splitlines()
    assert any("tottime" in line for line in profile)
    assert 1 < float(last.rpartition(" ")[2]) < 1000
