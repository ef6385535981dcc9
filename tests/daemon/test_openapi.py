"""The API as its own OpenAPI document describes it: nothing that schemathesis makes of that brings a 500.

`FUZZ_EXAMPLES` is how many cases it tries per operation.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from scalesim_daemon.api import build_api
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.settings import RunMode
from tests.daemon.still import add_engine, open_stream, say, still_sidecar

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "5"))
# No operation documents a 500; the 503 of /health and /ready is documented.
HOST = {"Host": "127.0.0.1"}
CHECKS = [status_code_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sidecar]:
    sidecar = still_sidecar(tmp_path_factory.mktemp("sidecar"))
    sidecar.mode = RunMode.OBSERVE
    add_engine(sidecar)
    open_stream(sidecar)
    say(sidecar, {"type": "agent.activity_started", "agent": "a", "for": 3})
    yield sidecar
    sidecar.library.close()


def test_no_case_of_the_document_brings_a_500(sidecar: Sidecar) -> None:
    document = schemathesis.openapi.from_asgi("/openapi.json", build_api(sidecar), headers=HOST)
    tried = Counter[str]()
    for found in document.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
        )
        @given(case=operation.as_strategy() | operation.as_strategy(GenerationMode.NEGATIVE))
        def check(case: schemathesis.Case) -> None:
            tried[case.operation.label] += 1
            case.call_and_validate(checks=CHECKS, headers=HOST)

        check()
    assert {"POST /v1/events", "POST /v1/update", "GET /v1/agents"} < set(tried)
    assert min(tried.values()) >= 1
