"""The contract of engine adapters, on a real SGLang."""

from __future__ import annotations

import pytest

from bench.rig.sglang import SglangServer
from tests.adapters.contract import EngineContract, Subject
from tests.engines import sglang_subject


@pytest.mark.engine
class TestSglang(EngineContract):
    @pytest.fixture
    def subject(self, sglang_server: SglangServer) -> Subject:
        return sglang_subject.subject_of(sglang_server)

    @pytest.fixture
    def mortal(self, subject: Subject) -> Subject:
        return subject
