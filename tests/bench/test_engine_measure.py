from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

from bench.background.requests import Request, Traffic
from bench.demo.runner import Answer, Run
from bench.engine.measure import compare, interval, ratio
from bench.engine.places import Performance
from bench.engine.report import headline
from bench.engine.result import LINE, Conditions, Numbers, Result, line, read, write
from bench.workloads.base import Call

WARMUP = 1
REPORT = {
    "prefetches": 4,
    "prefetches_used": 3,
    "prefetches_wasted": 1,
    "prefetched_tokens": 1000,
    "prefetched_tokens_wasted": 100,
    "prefetched_tokens_pending": 150,
    "order_accuracy": 0.9,
    "recency_accuracy": 0.4,
}
FIRST = {"prefetched_tokens": 970}


def performance(seconds: Sequence[float], cached: int, report: dict[str, Any] | None = None) -> Performance:
    """Return a run with one call of 100 tokens in each step; in the first nothing is cached."""
    ends = tuple(sum(seconds[: step + 1]) for step in range(len(seconds)))
    answers = tuple(
        Answer(Call("a", "activity", f"{step}"), step, took / 2, 100, cached if step > WARMUP else 0)
        for step, took in enumerate(seconds, start=1)
    )
    run = Run(0.0, ends, answers)
    return Performance(run) if report is None else Performance(run, FIRST, report, 1.5)


@pytest.fixture
def numbers() -> dict[str, Numbers]:
    """Three repetitions, of which the variant's last was played on a slower machine."""
    return compare(
        {
            "alone": [performance([9.0, 2.0, 4.0], 10)] * 3,
            "host_lru": [performance([9.0, 2.0, 3.0], 30)] * 3,
            "both": [
                performance([5.0, 1.0, 2.0], 70, REPORT),
                performance([7.0, 1.0, 2.0], 70, REPORT),
                performance([9.0, 4.0, 8.0], 70, REPORT),
            ],
            "shuffled": [performance([9.0, 1.5, 3.0], 40, REPORT)] * 3,
        },
        WARMUP,
    )


def test_figures_are_medians_without_the_first_steps(numbers: dict[str, Numbers]) -> None:
    ours = numbers["both"]
    assert (ours.calls, ours.makespan, ours.makespan_ratio) == (2, 3.0, 2.0)
    assert (ours.ttft_mean, ours.ttft_mean_ratio) == (0.75, 2.0)
    assert (ours.cached_share, ours.prefetched_tokens, ours.recomputed_tokens) == (0.7, 30, 60 + 30)
    assert ours.recomputed_tokens_ratio == 90 / 180
    assert (ours.prefetch_precision, ours.prefetch_waste, ours.daemon_cpu_seconds) == (0.75, 0.25, 1.5)
    assert (ours.order_accuracy, ours.recency_accuracy) == (0.9, 0.4)
    assert (ours.over_shuffled, ours.ttft_over_host_lru, ours.ttft_p95_ratio) == (1.5, 1.6667, 2.0)
    assert ours.makespan_ratio_low <= ours.makespan_ratio <= ours.makespan_ratio_high


def test_who_hears_shuffled_dues_is_not_scored_by_true_ones(numbers: dict[str, Numbers]) -> None:
    assert numbers["shuffled"].order_accuracy is numbers["shuffled"].over_shuffled is None


def test_the_engine_alone_is_compared_with_itself(numbers: dict[str, Numbers]) -> None:
    alone = numbers["alone"]
    assert (alone.makespan_ratio, alone.makespan_ratio_low, alone.makespan_ratio_high) == (1.0, 1.0, 1.0)
    assert (alone.ttft_mean_ratio, alone.recomputed_tokens_ratio) == (1.0, 1.0)
    assert alone.prefetch_precision is alone.order_accuracy is alone.daemon_cpu_seconds is None


def test_a_failed_request_is_counted_wherever_it_fails() -> None:
    good = performance([1.0, 1.0], 0)
    failed = Run(0.0, good.run.ends, (*good.run.answers, Answer(Call("a", "activity", "x"), 1, error="lost")))
    found = compare({"alone": [good], "history": [Performance(failed)]}, WARMUP)
    assert found["history"].failed_requests == 1


def test_what_nobody_announced_is_told_apart() -> None:
    def beside(seconds: float) -> Performance:
        request = Request(0.0, (seconds, seconds + 1), 100, 0)
        return replace(performance([1.0, 1.0], 0), traffic=Traffic([request, request], 1))

    found = compare({"alone": [beside(3.0)], "history": [beside(2.0)]}, WARMUP)["history"]
    assert (found.unannounced, found.unannounced_failed, found.failed_requests) == (2, 1, 0)
    assert (found.unannounced_ttft_mean, found.unannounced_ttft_mean_ratio) == (2.0, 1.5)


def test_the_interval_holds_the_ratio_and_is_the_same_each_time() -> None:
    rng = Random(1)
    alone = [[rng.uniform(1, 3) for _ in range(20)] for _ in range(3)]
    ours = [[took / rng.uniform(1.5, 2.5) for took in run] for run in alone]
    low, high = interval(alone, ours)
    assert 1.5 < low < ratio(alone, ours) < high < 2.5
    assert (low, high) == interval(alone, ours)


def test_the_interval_is_wider_the_fewer_steps_there_are() -> None:
    rng = Random(1)
    alone = [[1.0] * 100]
    ours = [[rng.uniform(0.4, 0.6) for _ in range(100)]]
    many, few = interval(alone, ours), interval([alone[0][:10]], [ours[0][:10]])
    assert few[1] - few[0] > 2 * (many[1] - many[0])


def test_the_interval_covers_the_truth_nine_times_out_of_ten() -> None:
    held = 0
    for seed in range(60):
        rng = Random(seed)
        alone = [[rng.uniform(1, 3) for _ in range(30)]]
        ours = [[took / 2 + rng.gauss(0, 0.2) for took in alone[0]]]
        low, high = interval(alone, ours, draws=200)
        held += low <= 2.0 <= high
    assert 0.8 < held / 60 < 0.98


def test_the_result_survives_its_file_and_its_line_has_what_was_agreed(
    numbers: dict[str, Numbers], tmp_path: Path
) -> None:
    result = Result(played("interaction"), {"interaction": numbers})
    write(result, tmp_path / "docs" / "engine.json")
    assert read(tmp_path / "docs" / "engine.json") == result
    said = json.loads(line(result))
    assert said["engine"] == "vLLM"
    assert set(said["classes"]["interaction"]["both"]) == set(LINE)
    assert said["classes"]["interaction"]["both"]["makespan_ratio"] == 2.0


def played(name: str, steps: int = 3) -> Conditions:
    on = {name: "2026-01-01"}
    return Conditions(
        "vLLM", "mid", 25, 1088, 16, 0.25, 6800, 0.5, steps, WARMUP, 3, 1, 2, on, {name: 0.2}, ""
    )


def test_classes_of_an_earlier_run_stay_where_the_conditions_are_the_same(
    numbers: dict[str, Numbers], tmp_path: Path
) -> None:
    path = tmp_path / "engine.json"
    write(Result(played("interaction"), {"interaction": numbers}), path)
    write(Result(played("path"), {"path": numbers}), path)
    both = read(path)
    assert list(both.classes) == list(both.conditions.played) == list(both.conditions.active)
    assert set(both.classes) == {"interaction", "path"}
    write(Result(played("path", steps=4), {"path": numbers}), path)
    assert set(read(path).classes) == {"path"}


def test_the_headline_stands_beside_the_control_and_the_ceiling(numbers: dict[str, Numbers]) -> None:
    text = headline("interaction", numbers)
    assert text.startswith("interaction: 2.00x (")
    assert "1.33x (1.33-1.33) shuffled, prediction's own share 1.50x (" in text
    with_ceiling = headline("interaction", numbers | {"ceiling": numbers["both"]})
    assert with_ceiling.startswith(text)
    assert "everything cached 2.00x" in with_ceiling
