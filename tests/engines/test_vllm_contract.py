"""The adapter contract on a real vLLM."""

from __future__ import annotations

import pytest

from bench.rig.vllm import VllmServer
from tests.adapters.contract import EngineContract, Subject
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
