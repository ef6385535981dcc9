"""The adapter contract on a real vLLM."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.rig.vllm import VllmServer
from tests.adapters.contract import EngineContract, Subject
from tests.engines import vllm_inside
from tests.engines.vllm_subject import subject_of


@pytest.mark.engine
class TestVllm(EngineContract):
    @pytest.fixture
    def subject(self, vllm_server: VllmServer) -> Subject:
        return subject_of(vllm_server)

    @pytest.fixture
    def mortal(self, mortal_vllm_server: VllmServer) -> Subject:
        if not mortal_vllm_server.healthy():
            mortal_vllm_server.restart()
        return subject_of(mortal_vllm_server)


@pytest.fixture(scope="module")
def mortal_inside_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmServer]:
    """Another server with the plug-in, for tests that kill and restart it."""
    server = vllm_inside.start(tmp_path_factory.mktemp("mortal-inside"))
    yield server
    server.stop()


@pytest.mark.engine
class TestVllmInside(EngineContract):
    """With the plug-in, which hears no dues: eviction is vLLM's own."""

    @pytest.fixture
    def subject(self, inside_vllm_server: VllmServer) -> Subject:
        return vllm_inside.subject_of(inside_vllm_server)

    @pytest.fixture
    def mortal(self, mortal_inside_server: VllmServer) -> Subject:
        if not mortal_inside_server.healthy():
            mortal_inside_server.restart()
        return vllm_inside.subject_of(mortal_inside_server)
