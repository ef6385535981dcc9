"""A variant's run on an emulated engine, with a real daemon beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from random import Random

from bench.demo.prompts import draw_prompts
from bench.engine.classes import CLASSES
from bench.engine.on_vllm import VLLM
from bench.engine.places import Performance, Stage, pool_tokens
from bench.engine.speech import own, record
from bench.engine.variants import FULL
from bench.workloads.mooncake import Arrival
from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer

STEPS = 8
WARMUP = 5


def perform(folder: Path, variant: str, arrivals: Sequence[Arrival] = ()) -> Performance:
    """Play some steps on an engine that has been used before."""
    workload = record(CLASSES["independent"](1, STEPS))
    prompts = draw_prompts(workload)
    played = FULL[variant]
    with EmulatorServer(
        EmulatorConfig(blocks=pool_tokens(played.place) // 32, max_loras=0, dev_mode=True)
    ) as engine:
        (folder / played.place).mkdir()
        stage = Stage(VLLM, folder, {"alone": engine.url, played.place: engine.url})
        asyncio.run(stage.perform(FULL["alone"], workload, prompts, STEPS, WARMUP))
        told = (played.speech or own)(workload, Random(1))
        return asyncio.run(stage.perform(played, told, prompts, STEPS, WARMUP, arrivals))


def cached_first(performance: Performance) -> int:
    """Return how much of the first call's prompt was there when it came."""
    return performance.run.answers[0].cached


def test_a_run_finds_the_engine_empty(tmp_path: Path) -> None:
    played = perform(tmp_path, "alone")
    assert cached_first(played) == 0
    assert [answer.error for answer in played.run.answers] == [None] * len(played.run.answers)
    assert (len(played.run.ends), played.report, played.prefetched) == (STEPS, None, 0)


def test_beside_a_daemon_its_work_is_told(tmp_path: Path) -> None:
    played = perform(tmp_path, "both")
    assert [answer.error for answer in played.run.answers] == [None] * len(played.run.answers)
    assert played.first is not None
    assert played.report is not None
    assert played.report["order_pairs"] > 0
    assert 0 <= played.prefetched <= played.report["prefetched_tokens"]
    assert played.cpu_seconds is not None
    assert 0 < played.cpu_seconds < 60


def test_without_prefetches_nothing_is_moved(tmp_path: Path) -> None:
    played = perform(tmp_path, "evict_only")
    assert played.report is not None
    assert (played.report["prefetches"], played.report["touches"]) == (0, 0)
    assert played.report["order_pairs"] > 0


def test_under_the_ceiling_every_prefix_is_there(tmp_path: Path) -> None:
    assert cached_first(perform(tmp_path, "ceiling")) == 1024


def test_beside_what_nobody_announced_that_has_figures_of_its_own(tmp_path: Path) -> None:
    arrivals = [Arrival(0.0, 64, 2, 32, (1, 2)), Arrival(0.01, 64, 2, 32, (1, 3))]
    traffic = perform(tmp_path, "alone", arrivals).traffic
    assert traffic is not None
    assert (len(traffic.requests), traffic.failed, traffic.cached_share) == (2, 0, 0.25)
