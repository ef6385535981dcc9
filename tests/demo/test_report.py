from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.demo.loras import LoraResult, LoraRun
from bench.demo.measure import Result, differing, figures, summary
from bench.demo.report import EMULATED, draw, print_result
from bench.demo.runner import Answer, Run
from bench.workloads.base import Call

KEYS = [
    "makespan_ratio",
    "ttft_mean_ratio",
    "cached_share_alone",
    "cached_share_sidecar",
    "prefetch_wasted_share",
    "failed_requests",
    "order_accuracy",
    "engine",
]
LORAS = LoraResult(ours=LoraRun(35, 0, 35, 0.03), alone=LoraRun(35, 0, 4, 0.03))
LEDGER = {
    "prefetches": 8,
    "prefetches_used": 6,
    "prefetches_wasted": 2,
    "prefetches_pending": 1,
    "prefetched_tokens": 8192,
    "prefetched_tokens_wasted": 1536,
    "prefetched_tokens_pending": 512,
    "touches": 3,
    "cancelled": 4,
    "order_accuracy": 0.9,
}


def run(ttfts: list[float], cached: int, step_seconds: float, pace: float = 1.0) -> Run:
    calls = [Call(f"a{i}", "activity", f"sees {i}") for i in range(len(ttfts))]
    answers = [
        Answer(call, i + 1, t, 1088, cached, f"text {i}")
        for i, (call, t) in enumerate(zip(calls, ttfts, strict=True))
    ]
    return Run(pace, tuple(step_seconds * (i + 1) for i in range(len(ttfts))), tuple(answers))


@pytest.fixture
def result() -> Result:
    return Result(
        engine="vLLM 0.32.0 (CPU)",
        workload="village, seed 1",
        stock_is_better=False,
        cold_prefill=0.5,
        alone=run([1.0, 2.0, 3.0], 272, 4.0),
        ours=run([0.5, 0.5, 0.5], 1024, 2.0),
        stock_rushed=run([1.0, 4.0], 0, 4.0, 0.0),
        flags_rushed=run([1.0, 2.0], 0, 3.0, 0.0),
        ours_rushed=run([1.0, 2.0], 0, 3.0, 0.0),
        report=LEDGER,
    )


def test_figures_leave_failed_requests_out(result: Result) -> None:
    broken = replace(result.alone.answers[2], error="ReadTimeout: ")
    said = figures(replace(result.alone, answers=(*result.alone.answers[:2], broken)))
    assert (said.requests, said.failed) == (3, 1)
    assert said.ttft_mean == 1.5
    assert said.ttft_p95 == pytest.approx(1.95)
    assert said.cached_share == 0.25
    assert said.makespan == 12.0


def test_summary_divides_alone_by_ours(result: Result) -> None:
    assert summary(result) == {
        "makespan_ratio": 2.0,
        "ttft_mean_ratio": 4.0,
        "cached_share_alone": 0.25,
        "cached_share_sidecar": round(1024 / 1088, 4),
        "prefetch_wasted_share": 0.25,
        "failed_requests": 0,
        "order_accuracy": 0.9,
        "engine": "vLLM 0.32.0 (CPU)",
    }


def test_summary_names_the_trace(result: Result) -> None:
    source = {"name": "day.md", "sha256": "0" * 64, "source": None}
    assert summary(replace(result, trace=source))["trace"] == source


def test_every_failed_request_of_every_run_counts(result: Result) -> None:
    broken = tuple(replace(answer, error="ReadTimeout: ") for answer in result.ours_rushed.answers)
    assert (
        summary(replace(result, ours_rushed=replace(result.ours_rushed, answers=broken)))["failed_requests"]
        == 2
    )


def test_no_prefetch_wastes_nothing(result: Result) -> None:
    idle = {**LEDGER, "prefetched_tokens": 0, "prefetched_tokens_wasted": 0, "order_accuracy": None}
    said = summary(replace(result, report=idle))
    assert (said["prefetch_wasted_share"], said["order_accuracy"]) == (0.0, None)


def test_texts_that_differ_are_counted(result: Result) -> None:
    other = replace(
        result.ours, answers=(replace(result.ours.answers[0], output="else"), *result.ours.answers[1:])
    )
    assert (differing(result.alone, result.ours), differing(result.alone, other)) == (0, 1)


def test_texts_are_compared_where_every_run_answered(result: Result) -> None:
    changed = tuple(replace(answer, output="else") for answer in result.stock_rushed.answers)
    odd = replace(result, stock_rushed=replace(result.stock_rushed, answers=changed))
    assert (result.differing, odd.differing) == ((0, 0, 2), (0, 2, 2))


def test_the_better_flags_stand_for_the_engine_alone(result: Result) -> None:
    assert (result.alone_flags, result.alone_rushed) == ("our", result.flags_rushed)
    stock = replace(result, stock_is_better=True)
    assert (stock.alone_flags, stock.alone_rushed) == ("vLLM's default", result.stock_rushed)


def test_last_line_is_the_summary(result: Result, capsys: pytest.CaptureFixture[str]) -> None:
    print_result(result, LORAS, Path("out/demo.png"))
    *table, last = capsys.readouterr().out.splitlines()
    assert list(json.loads(last)) == KEYS
    assert any("p95 TTFT" in line and "500 ms" in line for line in table)
    assert any("pace 0" in line for line in table)
    assert not any(EMULATED in line for line in table)


def test_every_line_of_an_emulated_engine_says_so(result: Result, capsys: pytest.CaptureFixture[str]) -> None:
    print_result(
        replace(result, engine="emulator (an emulated engine, no real one)"), LORAS, Path("out/demo.png")
    )
    lines = capsys.readouterr().out.splitlines()
    assert all("emulated engine" in line for line in lines)
    assert list(json.loads(lines[-1])) == KEYS


def test_draws_a_picture(result: Result, tmp_path: Path) -> None:
    draw(result, tmp_path / "out" / "demo.png")
    assert (tmp_path / "out" / "demo.png").read_bytes().startswith(b"\x89PNG")
