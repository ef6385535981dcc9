"""Each change of state is one line in the log, said once however many rounds the loop makes."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from scalesim_adapters.base import Cleared, FeedLost, MemoryKind, Rejected
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.records import Record
from scalesim_daemon.settings import RunMode
from tests.daemon.live import daemon, emulator, until
from tests.daemon.lora_files import make_lora
from tests.daemon.still import INFO, add_engine, open_stream, say

STEP = Step(Action.LOAD, MemoryKind.PREFIX_KV, "sim/a", 0, 2, 1.0, "due next")


@pytest.fixture
def paused(sidecar: Sidecar) -> Sidecar:
    """A sidecar that has said which mode it is in, and does nothing."""
    sidecar.mode = RunMode.PAUSED
    news(sidecar)
    return sidecar


def news(sidecar: Sidecar) -> list[dict[str, Any]]:
    """What three rounds of the loop say."""
    with capture_logs() as lines:
        for _ in range(3):
            sidecar.cycle()
    return lines


def only(lines: list[dict[str, Any]]) -> tuple[str, str]:
    (line,) = lines
    return line["log_level"], line["event"]


def test_a_mode_is_said_once(sidecar: Sidecar) -> None:
    sidecar.mode = RunMode.PAUSED
    assert [(line["event"], line["mode"]) for line in news(sidecar)] == [("mode", "paused")]
    sidecar.mode = RunMode.OBSERVE
    assert [(line["mode"], line["was"]) for line in news(sidecar)] == [("observe", "paused")]


def test_an_engine_is_found_lost_and_back_and_restarts(paused: Sidecar) -> None:
    view = add_engine(paused, info=None).view
    assert news(paused) == []
    view.unreachable("connection refused")
    assert only(news(paused)) == ("warning", "engine does not answer")
    view.unreachable("another word for it")
    assert news(paused) == []
    view.probed(INFO)
    (found,) = news(paused)
    assert (found["event"], found["version"], found["blocks"]) == ("engine found", "0.32.0", 16)
    view.unreachable("timeout")
    assert only(news(paused)) == ("warning", "engine does not answer")
    view.probed(INFO)
    assert only(news(paused)) == ("info", "engine answers again")
    view.probed(replace(INFO, incarnation="2"))
    (found,) = news(paused)
    assert (found["event"], found["restarts"]) == ("engine found", 1)


def test_what_is_known_of_a_cache_is_said_when_it_changes(paused: Sidecar) -> None:
    view = add_engine(paused).view
    news(paused)
    view.happened(FeedLost("a message was lost"))
    (lost,) = news(paused)
    assert (lost["event"], lost["why"]) == ("engine's cache is not known", "a message was lost")
    view.unreachable("timeout")
    view.happened(Cleared())
    assert only(news(paused)) == ("warning", "engine does not answer")
    view.probed(INFO)
    assert [line["event"] for line in news(paused)] == ["engine answers again", "engine's cache is known"]


def test_a_stream_opens_goes_stale_heals_and_closes(paused: Sidecar) -> None:
    opened = {"type": "stream.opened", "simulation": "sim", "source": "sim", "clock": "step"}
    paused.admit("sim", 0, [{**opened, "incarnation": 1}])
    (line,) = news(paused)
    assert (line["event"], line["incarnation"], line["clock"]) == ("stream opened", 1, "step")
    paused.admit("sim", 5, [{"type": "agent.woken", "agent": "a"}])
    paused.admit("sim", 9, [{"type": "agent.woken", "agent": "a"}])
    assert only(news(paused)) == ("warning", "stream stale")
    paused.admit("sim", 10, [{"type": "state.snapshot", "part": 0, "of": 1, "events": []}])
    assert only(news(paused)) == ("info", "stream healed")
    paused.admit("sim", 0, [{**opened, "incarnation": 2}])
    assert only(news(paused)) == ("info", "stream opened")
    paused.admit("sim", 1, [{"type": "stream.closed"}])
    assert only(news(paused)) == ("info", "stream closed")


def test_an_estimator_is_dropped_and_admitted_again(paused: Sidecar) -> None:
    open_stream(paused)
    say(paused, {"type": "agent.registered", "agent": "a"})
    assert only(news(paused)) == ("info", "stream opened")
    quality = paused.population.qualities()["sim"]
    admitted = quality.admitted
    quality.admitted = [name not in ("activity", "history") for name in quality.names]
    (line,) = news(paused)
    assert (line["event"], line["source"], line["estimator"]) == ("estimator dropped", "sim", "activity")
    quality.admitted = admitted
    paused.admit("sim", 7, [{"type": "agent.woken", "agent": "a"}])
    stale, line = news(paused)
    assert stale["event"] == "stream stale"
    assert (line["event"], line["estimator"]) == ("estimator admitted", "activity")


@pytest.fixture
def acted(sidecar: Sidecar) -> Iterator[list[dict[str, Any]]]:
    """What is said of one step of each outcome."""
    with capture_logs() as lines:
        for result in ("done", "put off: no room", "cancelled: requests wait", "failed: no"):
            sidecar.record(Record(0.0, "one", STEP, result, 0.12345, 8))
        sidecar.record(Record(0.0, "one", replace(STEP, action=Action.TOUCH), "done", 0.1, 0))
    yield lines


def test_a_step_is_said_when_it_has_changed_something(acted: list[dict[str, Any]]) -> None:
    assert [(line["log_level"], line["event"]) for line in acted] == [
        ("info", "step done"),
        ("debug", "step put off"),
        ("debug", "step cancelled"),
        ("debug", "step done"),
    ]
    first = acted[0]
    assert (first["action"], first["key"], first["seconds"], first["why"]) == (
        *("load", "sim/a"),
        *(0.123, "due next"),
    )


def test_what_fails_for_the_same_reason_again_is_said_once_until_it_has_worked(sidecar: Sidecar) -> None:
    driver = add_engine(sidecar)

    def said(*errors: str) -> list[str]:
        with capture_logs() as lines:
            for error in errors:
                driver._failed(STEP, Rejected(error))
        return [line["error"] for line in lines if line["log_level"] == "warning"]

    assert said("no such LoRA", "no such LoRA", "its rank is too big", "its rank is too big") == [
        *("no such LoRA", "its rank is too big"),
    ]
    driver._backoff.forget(STEP)
    assert said("its rank is too big") == ["its rank is too big"]


def test_a_lora_that_is_not_taken_is_said_once_until_that_changes(paused: Sidecar, tmp_path: Path) -> None:
    async def linked() -> bool:
        return not paused.linking.under_way

    async def bind(times: int) -> list[str]:
        with capture_logs() as lines:
            for _ in range(times):
                bound = {"type": "memory.bound", "agent": "a", "lora": str(folder), "lora_name": "ada"}
                say(paused, bound)
                paused.cycle()
                await until(linked)
        return [line["event"] for line in lines if "LoRA" in line["event"]]

    folder = tmp_path / "ada"
    open_stream(paused)
    assert asyncio.run(bind(3)) == ["LoRA not taken"]
    make_lora(folder, b"x")
    assert asyncio.run(bind(2)) == []
    shutil.rmtree(folder)
    assert asyncio.run(bind(2)) == ["LoRA not taken"]


def test_a_whole_daemon_says_each_change_once(tmp_path: Path) -> None:
    async def body() -> list[dict[str, Any]]:
        with capture_logs() as lines, emulator(tmp_path) as engine:
            async with daemon(tmp_path, engine.url) as (sidecar, _):
                (driver,) = sidecar.drivers.values()

                async def ready() -> bool:
                    return driver.view.known and sidecar.counts["cycles"] > 5

                await until(ready)
        return lines

    said = [line["event"] for line in asyncio.run(body()) if line["log_level"] != "debug"]
    assert said.count("engine found") == said.count("mode") == said.count("Redis is in step") == 1
    assert len(set(said)) == len(said)
