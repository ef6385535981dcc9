"""Real engines, each started once for all tests. Where one isn't installed its tests are skipped by name."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.rig import llamacpp, sglang, vllm
from bench.rig.sglang import SglangServer
from bench.rig.vllm import VllmServer
from tests.engines import sglang_inside, sglang_subject, vllm_inside, vllm_subject

START_SECONDS = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test's time includes the start of its engine."""
    for item in items:
        if item.get_closest_marker("engine"):
            item.add_marker(pytest.mark.timeout(START_SECONDS))


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """The tiny model with LoRAs, shared by all tests: none may kill it or leave a LoRA's name behind."""
    server = vllm_subject.start(tmp_path_factory.mktemp("vllm"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def mortal_vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """Another one, for tests that kill and restart it."""
    server = vllm_subject.start(tmp_path_factory.mktemp("mortal"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def inside_vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """One with the plug-in, shared by all tests: as above, and its weights are those it was started with."""
    server = vllm_inside.start(tmp_path_factory.mktemp("inside"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def sglang_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SglangServer]:
    """SGLang with the tiny model and LoRAs, shared by all tests: none may kill it or leave a LoRA's name behind."""
    server = sglang_subject.start(tmp_path_factory.mktemp("sglang"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def inside_sglang_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SglangServer]:
    """One with the plug-in, shared by all tests: as above, except that it may be restarted, and its model is awake."""
    server = sglang_inside.start(tmp_path_factory.mktemp("inside"))
    yield server
    server.stop()


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
