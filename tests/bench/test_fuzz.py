"""The fuzzer: it repeats itself, every reader stands a slice of it, and what a reader may not do is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from random import Random
from time import thread_time

import pytest

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


def _busy(seconds: float) -> None:
    until = thread_time() + seconds
    while thread_time() < until:
        pass
