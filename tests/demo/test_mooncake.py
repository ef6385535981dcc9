"""Recorded traffic scaled to a small model, and sent beside a workload."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bench.background.replay import background
from bench.background.requests import Traffic
from bench.demo.prompts import PromptBook
from bench.demo.runner import play
from bench.workloads.classes import Loners
from bench.workloads.mooncake import Arrival, read_arrivals
from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer

LINES = [
    {"timestamp": 1000, "input_length": 1100, "output_length": 160, "hash_ids": [0, 1, 2]},
    {"timestamp": 1000, "input_length": 99_999, "output_length": 16, "hash_ids": list(range(196))},
    {"timestamp": 4000, "input_length": 1536, "output_length": 1, "hash_ids": [0, 1, 3]},
    {"timestamp": 5000, "input_length": 20, "output_length": 32, "hash_ids": [4]},
]


@pytest.fixture(scope="module")
def engine() -> Iterator[EmulatorServer]:
    with EmulatorServer(EmulatorConfig(blocks=100, max_loras=0, time_scale=0.1)) as server:
        yield server


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in LINES))
    return path


def test_lengths_shrink_and_what_does_not_fit_is_left_out(trace: Path) -> None:
    arrivals = read_arrivals(trace, rate=1.0, longest=200)
    assert [(a.prompt_tokens, a.output_tokens) for a in arrivals] == [(69, 10), (96, 1), (1, 2)]
    assert [len(a.prompt()) for a in arrivals] == [69, 96, 1]


def test_equal_ids_are_equal_tokens_and_others_are_not(trace: Path) -> None:
    one, two, three = (arrival.prompt() for arrival in read_arrivals(trace, rate=1.0, longest=200))
    assert one[:64] == two[:64]
    assert one[64:] != two[64:69]
    assert three[0] != one[0]
    assert two[64:66] == read_arrivals(trace, rate=1.0, longest=200, block_tokens=16)[1].prompt()[32:34]


def test_time_is_stretched_to_the_rate(trace: Path) -> None:
    arrivals = read_arrivals(trace, rate=0.5, longest=200)
    assert [arrival.at for arrival in arrivals] == [0.0, 3.0, 4.0]


@pytest.mark.parametrize("line", ["[]", "{}", "nothing", '{"timestamp": "now"}'])
def test_refuses_what_is_no_trace(trace: Path, line: str) -> None:
    trace.write_text(f"{trace.read_text()}{line}\n")
    with pytest.raises(ValueError, match=r"trace\.jsonl, line 5"):
        read_arrivals(trace, rate=1.0, longest=200)


def test_refuses_where_nothing_fits(trace: Path) -> None:
    with pytest.raises(ValueError, match="fits into 2 tokens"):
        read_arrivals(trace, rate=1.0, longest=2)


def beside(url: str, arrivals: Sequence[Arrival], engine: str) -> Traffic:
    """Play a workload on the engine at `engine`, and send the requests to `url` meanwhile."""
    workload = Loners(1, 4, 5)
    prompts = PromptBook(
        {agent: [7] * 32 for agent in workload.personas},
        {call.memory: [8] * 32 for step in workload.steps() for call in step.calls},
    )

    async def run() -> Traffic:
        async with background(url, arrivals) as traffic:
            played = await play(engine, workload, prompts, pace=0.02)
        assert [answer.error for answer in played.answers] == [None] * len(played.answers)
        return traffic

    return asyncio.run(run())


def test_is_sent_beside_a_workload_and_has_figures_of_its_own(engine: EmulatorServer) -> None:
    """What would come after the workload's end is never sent."""
    beside(engine.url, [Arrival(0.0, 64, 2, 32, (1, 2))], engine.url)
    known = [Arrival(0.0, 64, 2, 32, (1, 2)), Arrival(0.0, 64, 2, 32, (1, 3))]
    traffic = beside(engine.url, [*known, Arrival(1e6, 64, 2, 32, (4, 5))], engine.url)
    assert (len(traffic.requests), traffic.failed) == (2, 0)
    assert traffic.cached_share == 0.5
    assert 0 < traffic.ttft_mean <= traffic.ttft_p95


def test_a_request_that_fails_is_counted(engine: EmulatorServer) -> None:
    traffic = beside("http://127.0.0.1:9", [Arrival(0.0, 64, 2, 32, (1, 2))], engine.url)
    assert (traffic.requests, traffic.failed) == ([], 1)
