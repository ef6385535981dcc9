"""The fuzzer: it repeats itself, every reader stands a slice of it, and what a reader may not do is found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from time import thread_time

import pytest

from bench.fuzz import __main__ as fuzz
from bench.fuzz import drive as driving
from bench.fuzz.drive import Outcome, drive
from bench.fuzz.mutate import JSON, Mutator
from bench.fuzz.readers import READERS, Reader

SLICE = 200


def test_equal_seeds_give_equal_inputs() -> None:
    rows = [Mutator(Random(seed), [b'{"a": [1, "b"]}'], JSON) for seed in ("1", "1", "2")]
    one, same, other = ([row.next() for _ in range(200)] for row in rows)
    assert one == same != other
    assert len(set(one)) > 100


@pytest.mark.parametrize("known", READERS, ids=lambda known: known.name)
def test_every_reader_reads_its_examples_and_stands_nonsense(
    known: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = known.make()
    for example in known.examples():
        read(example)
    # PyYAML takes seconds for what costs it most.
    slow = known.name == "settings"
    form = replace(known.form, bombs=lambda size: []) if slow else known.form
    small = replace(known, largest=4096, form=form)
    monkeypatch.setattr(driving, "reader", lambda _: small)
    count = 20 if slow else SLICE
    outcome = drive(known.name, "test", count)
    assert outcome.inputs >= count
    assert outcome.findings == {}


@pytest.mark.parametrize(
    ("flaw", "named"),
    [
        (lambda data: json.loads(data)["a"], "Error at test_fuzz.py"),
        (lambda data: [data] * 10_000_000, "too much memory"),
        (lambda data: _busy(0.1), "too slow"),
    ],
)
def test_what_a_reader_may_not_do_is_found(
    flaw: Callable[[bytes], object], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = replace(JSON, bombs=lambda size: [b"[]"])
    flawed = Reader("flawed", lambda: flaw, lambda: [b'{"a": 1}'], form, (ValueError,), seconds=0.05)
    monkeypatch.setattr(driving, "reader", lambda _: flawed)
    outcome: Outcome = drive("flawed", "test", 2)
    assert any(named in finding for finding in outcome.findings), outcome.findings


def test_parts_have_seeds_of_their_own_and_make_up_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "PART", 30)
    parts = list(fuzz.parts(["door", "update"], 100, 7))
    assert [part.inputs for part in parts] == [30, 30, 20, 20]
    assert [part.seed for part in parts] == ["7 door 0", "7 update 0", "7 door 1", "7 update 1"]


def test_a_process_that_an_input_ends_is_a_finding_with_that_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = fuzz.Part("control", "1 control 0", 40)
    assert (whole := fuzz.run(part, tmp_path)).inputs >= 40
    assert whole.findings == {}
    # A process that comes to its last input, and dies of it.
    (last,) = tmp_path.iterdir()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    killed = fuzz.run(part, tmp_path)
    assert killed.findings == {"ended by status 1": f"seed '1 control 0': {_kept(last).hex()}"}
    monkeypatch.setattr(subprocess, "run", _never_done)
    assert list(fuzz.run(part, tmp_path).findings) == ["not done within 301 s"]
    assert fuzz.summed_up([whole, killed])["findings"] == 1


def _kept(path: Path) -> bytes:
    data = driving.Current.read(path)
    assert data
    return data[: driving.SHOWN]


def _never_done(command: list[str], *, timeout: float, **_: object) -> None:
    raise subprocess.TimeoutExpired(command, timeout)


def _busy(seconds: float) -> None:
    until = thread_time() + seconds
    while thread_time() < until:
        pass
