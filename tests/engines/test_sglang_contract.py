"""The contract of engine adapters, on a real SGLang."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.rig.sglang import SglangServer
from tests.adapters.contract import EngineContract, Subject
from tests.engines import sglang_subject


@pytest.fixture(scope="module")
def mortal_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SglangServer]:
    """A server of its own, for tests that kill and restart it."""
    server = sglang_subject.start(tmp_path_factory.mktemp("mortal"))
    yield server
    server.stop()


@pytest.mark.engine
class TestSglang(EngineContract):
    @pytest.fixture
    def subject(self, sglang_server: SglangServer) -> Subject:
        return sglang_subject.subject_of(sglang_server)

    @pytest.fixture
    def mortal(self, mortal_server: SglangServer) -> Subject:
        if not mortal_server.healthy():
            mortal_server.restart()
        return sglang_subject.subject_of(mortal_server)
