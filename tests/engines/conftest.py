"""Real engines, each started once for all tests. Where one isn't installed its tests are skipped by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bench.rig import llamacpp, sglang, vllm
from bench.rig.process import EngineServer
from bench.rig.sglang import SglangServer
from bench.rig.vllm import VllmServer
from tests.engines import sglang_inside, sglang_subject, vllm_inside, vllm_subject

START_SECONDS = 600
STARTS: dict[str, Callable[[Path], EngineServer]] = {
    "vllm": vllm_subject.start,
    "inside_vllm": vllm_inside.start,
    "sglang": sglang_subject.start,
    "inside_sglang": sglang_inside.start,
    "exact_vllm": vllm_subject.start_exact,
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's time includes the start of its engine."""
    for item in items:
        if item.get_closest_marker("engine"):
            item.add_marker(pytest.mark.timeout(START_SECONDS))


class Shared:
    """Engines that are started once for all tests, two at a time: a start keeps one core busy."""

    def __init__(self, folder: Callable[[str], Path]) -> None:
        self._folder = folder
        self._starting = ThreadPoolExecutor(2)
        self._servers: dict[str, Future[EngineServer]] = {}

    def begin(self, name: str) -> Future[EngineServer]:
        """Have an engine of `STARTS` started, unless it has been."""
        if name not in self._servers:
            self._servers[name] = self._starting.submit(STARTS[name], self._folder(name))
        return self._servers[name]

    def alive(self, name: str) -> Any:
        """Return an engine that runs, started again where a test has killed it. Skips where it isn't installed."""
        server = self.begin(name).result()
        if not server.running:
            server.restart()
        return server

    def stop(self) -> None:
        """Stop them all."""
        self._starting.shutdown()
        for starting in self._servers.values():
            if starting.exception() is None:
                starting.result().stop()


@pytest.fixture(scope="session")
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """The engines; those that tests to come ask for by name are begun at once."""
    shared = Shared(tmp_path_factory.mktemp)
    for name in STARTS:
        if any(f"{name}_server" in getattr(item, "fixturenames", ()) for item in request.session.items):
            shared.begin(name)
    yield shared
    shared.stop()


@pytest.fixture
def vllm_server(shared: Shared) -> VllmServer:
    """The tiny model with LoRAs, shared by all tests: it may be killed, no LoRA's name be left behind."""
    return shared.alive("vllm")


@pytest.fixture
def inside_vllm_server(shared: Shared) -> VllmServer:
    """One with the plug-in, shared by all tests: as above, and its weights are those it was started with."""
    return shared.alive("inside_vllm")


@pytest.fixture
def sglang_server(shared: Shared) -> SglangServer:
    """SGLang with the tiny model and LoRAs, shared by all tests: it may be killed, no LoRA's name be left behind."""
    return shared.alive("sglang")


@pytest.fixture
def inside_sglang_server(shared: Shared) -> SglangServer:
    """One with the plug-in, shared by all tests: as above, and its model is awake."""
    return shared.alive("inside_sglang")


@pytest.fixture
def exact_vllm_server(shared: Shared) -> VllmServer:
    """vLLM alone in a precision without rounding ties, shared by all tests: it only ever has the tiny model."""
    return shared.alive("exact_vllm")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say in one line per engine what was exercised."""
    reports = [report for report in terminalreporter.stats.get("passed", []) if "engine" in report.keywords]
    for name, version, model in (
        ("vLLM", vllm.VERSION, "tiny with LoRAs"),
        ("SGLang", sglang.VERSION, "tiny with LoRAs"),
        ("llama.cpp", llamacpp.VERSION, "tiny.gguf"),
    ):
        passed = sum(f"test_{name.lower().replace('.', '')}" in report.nodeid for report in reports)
        if passed:
            what = f"real {name} {version} on this machine's CPU, model {model}"
            terminalreporter.write_line(f"{what}: {passed} tests passed")
