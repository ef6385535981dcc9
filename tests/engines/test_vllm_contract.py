"""The adapter contract on a real vLLM."""

from __future__ import annotations

import pytest

from bench.rig.vllm import VllmServer
from tests.adapters.contract import EngineContract, Subject
from tests.engines import vllm_inside, vllm_subject


@pytest.mark.engine
class TestVllm(EngineContract):
    @pytest.fixture
    def subject(self, vllm_server: VllmServer) -> Subject:
        return vllm_subject.subject_of(vllm_server)

    @pytest.fixture
    def mortal(self, subject: Subject) -> Subject:
        return subject


@pytest.mark.engine
class TestVllmInside(EngineContract):
    """With the plug-in, which hears no dues: eviction is vLLM's own."""

    @pytest.fixture
    def subject(self, inside_vllm_server: VllmServer) -> Subject:
        return vllm_inside.subject_of(inside_vllm_server)

    @pytest.fixture
    def mortal(self, subject: Subject) -> Subject:
        return subject
