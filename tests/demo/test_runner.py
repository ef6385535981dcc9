from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from bench.demo.lab import POOL_TOKENS
from bench.demo.prompts import FRESH_TOKENS, PREFIX_TOKENS, PromptBook, write_prompts
from bench.demo.runner import empty_cache, play, time_prefill
from bench.workloads.base import Workload
from bench.workloads.village import Village
from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer
from scalesim_adapters.emulator.faults import Status
from scalesim_client.events import Event, InvocationFinished, InvocationStarted, MemoryBound, StepAdvanced

STEPS = 6


@pytest.fixture(scope="module")
def engine() -> Iterator[EmulatorServer]:
    with EmulatorServer(EmulatorConfig(blocks=POOL_TOKENS // 32, max_loras=0)) as server:
        yield server


@pytest.fixture(scope="module")
def village() -> Village:
    return Village(1, STEPS)


@pytest.fixture(scope="module")
def prompts(engine: EmulatorServer, village: Village) -> PromptBook:
    return asyncio.run(write_prompts(engine.url, village))


class Listener:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def send(self, *events: Event) -> None:
        self.events += events


def calls_of(workload: Workload) -> list[str]:
    return [call.agent for step in workload.steps() for call in step.calls]


def test_prompts_are_private_prefixes_and_fresh_ends(village: Village, prompts: PromptBook) -> None:
    calls = [call for step in village.steps() for call in step.calls]
    for call in calls:
        prompt = prompts.prompt(call)
        assert len(prompt) == PREFIX_TOKENS + FRESH_TOKENS
        assert prompt[:PREFIX_TOKENS] == prompts.prefixes[call.agent]
    assert len({tuple(prompts.prompt(call)) for call in calls}) == len(calls)
    assert len({tuple(prefix[:32]) for prefix in prompts.prefixes.values()}) == 25


def test_plays_every_call_and_measures_what_was_cached(
    engine: EmulatorServer, village: Village, prompts: PromptBook
) -> None:
    asyncio.run(empty_cache(engine.url, POOL_TOKENS))
    run = asyncio.run(play(engine.url, village, prompts, pace=0.0))
    assert [answer.call.agent for answer in run.answers] == calls_of(village)
    assert [answer.error for answer in run.answers] == [None] * len(run.answers)
    assert len(run.ends) == STEPS
    assert sorted(run.ends) == list(run.ends)
    seen: set[str] = set()
    for answer in run.answers:
        assert answer.prompt_tokens == PREFIX_TOKENS + FRESH_TOKENS
        assert answer.ttft > 0
        assert answer.cached == 0 or answer.call.agent in seen
        seen.add(answer.call.agent)


def test_an_emptied_cache_gives_the_same_run_again(
    engine: EmulatorServer, village: Village, prompts: PromptBook
) -> None:
    runs = []
    for _ in range(2):
        asyncio.run(empty_cache(engine.url, POOL_TOKENS))
        runs.append(asyncio.run(play(engine.url, village, prompts, pace=0.0)))
    one, two = runs
    assert [a.output for a in one.answers] == [a.output for a in two.answers]
    first_calls = {a.call.agent: a.cached for a in reversed(two.answers)}
    assert set(first_calls.values()) == {0}


def test_says_memory_steps_and_invocations_in_order(
    engine: EmulatorServer, village: Village, prompts: PromptBook
) -> None:
    listener = Listener()
    asyncio.run(play(engine.url, village, prompts, pace=0.0, steps=2, speaker=listener))
    kinds = [type(event) for event in listener.events]
    assert kinds.count(MemoryBound) == 25
    assert kinds.index(MemoryBound) < kinds.index(StepAdvanced)
    assert [event.now for event in listener.events if isinstance(event, StepAdvanced)] == [0, 1, 2]
    started = [event.agent for event in listener.events if isinstance(event, InvocationStarted)]
    finished = [event.agent for event in listener.events if isinstance(event, InvocationFinished)]
    assert sorted(started) == sorted(finished)
    assert started == calls_of(village)[: len(started)]


def test_a_failed_request_is_counted_and_the_run_goes_on(
    engine: EmulatorServer, village: Village, prompts: PromptBook
) -> None:
    engine.inject(Status(route="/v1/completions", status=500))
    try:
        run = asyncio.run(play(engine.url, village, prompts, pace=0.0, steps=2))
    finally:
        engine.heal()
    failed = [answer for answer in run.answers if answer.error]
    assert len(failed) == 1
    assert len(run.ends) == 2


def test_times_a_cold_prefill(engine: EmulatorServer, prompts: PromptBook) -> None:
    assert asyncio.run(time_prefill(engine.url, prompts)) > 0


def test_refuses_a_text_that_is_too_short(engine: EmulatorServer, village: Village) -> None:
    class Terse(Village):
        def __init__(self) -> None:
            self.personas = {"agnes": "too short"}

    with pytest.raises(ValueError, match="9 tokens where 1024"):
        asyncio.run(write_prompts(engine.url, Terse()))
