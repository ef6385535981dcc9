"""The contract of engine adapters, on a real llama.cpp server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.contract import Subject
from tests.adapters.contract_basics import BasicContract
from tests.engines import llamacpp_subject


def serving(run: Path) -> Iterator[Subject]:
    with llamacpp_subject.start(run, slots=4) as server:
        yield llamacpp_subject.subject_of(server, run)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    yield from serving(tmp_path_factory.mktemp("llamacpp"))


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Subject]:
    yield from serving(tmp_path)


@pytest.mark.engine
class TestLlamacpp(BasicContract):
    """Every test that needs no events and no LoRAs."""
