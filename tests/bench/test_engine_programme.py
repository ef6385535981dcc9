from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.engine import programme
from bench.engine.kind import EngineKind
from bench.engine.on_vllm import VLLM
from bench.engine.places import Stage, pool_tokens
from bench.engine.programme import Options, Played, run_all, turns
from bench.engine.variants import ALONE, VARIANTS, Place
from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer


def test_every_repetition_plays_everything_in_an_order_of_its_own() -> None:
    rounds = [tuple(turns(["one", "two"], ["a", "b", "c"], seed)) for seed in range(3)]
    assert all(len(set(found)) == len(found) == 6 for found in rounds)
    assert len(set(rounds)) == 3


@contextmanager
def emulated(kind: EngineKind, folder: Path, places: Collection[Place]) -> Iterator[Stage]:
    config = EmulatorConfig(blocks=pool_tokens("alone") // 32, max_loras=0, dev_mode=True)
    with EmulatorServer(config) as engine:
        yield Stage(kind, folder, dict.fromkeys(places, engine.url))


def play(folder: Path, minutes: float) -> Played:
    options = Options(steps=3, warmup=1, repetitions=2, seed=1, minutes=minutes)
    return asyncio.run(run_all(VLLM, folder, ["independent"], {ALONE: VARIANTS[ALONE]}, options))


def test_repetitions_have_workloads_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programme, "stage", emulated)
    one, two = play(tmp_path, minutes=5)["independent"][ALONE]
    assert [answer.call for answer in one.run.answers] != [answer.call for answer in two.run.answers]


def test_no_repetition_begins_that_would_end_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programme, "stage", emulated)
    assert len(play(tmp_path, minutes=0)["independent"][ALONE]) == 1
