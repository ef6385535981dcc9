"""Traces: spans of rounds and steps, by OpenTelemetry's own parts; without `OTEL_*` none of them is loaded."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Event, Thread
from time import monotonic

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from structlog.testing import capture_logs

from scalesim_adapters.base import MemoryKind
from scalesim_daemon import tracing
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.records import Record
from scalesim_daemon.settings import RunMode
from scalesim_daemon.tracing import Traces, open_traces

STEP = Step(Action.LOAD, MemoryKind.PREFIX_KV, "sim/a", 0, 2, 1.0, "due next")
LORA = Step(Action.REGISTER, MemoryKind.LORA, "ada", 0, 1, 1.0, "its agent is near")


class Scene:
    def __init__(self) -> None:
        self._memory = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self.traces = Traces(provider)

    def cycle(self, *under_way: Step, at: float = 100.0) -> None:
        self.traces.cycle(at, 0.002, RunMode.ACTIVE, {"one": under_way})

    def ended(self, step: Step, result: str = "done") -> None:
        self.traces.step(Record(101.5, "one", step, result, 1.25, 64))

    def spans(self) -> list[ReadableSpan]:
        return list(self._memory.get_finished_spans())


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_a_round_that_started_something_is_a_span_and_its_steps_lie_under_it(scene: Scene) -> None:
    scene.cycle(STEP, LORA)
    scene.cycle(STEP, LORA, at=100.25)
    scene.ended(LORA)
    scene.ended(STEP)
    cycle, register, load = scene.spans()
    assert [span.name for span in scene.spans()] == ["cycle", "register lora", "load prefix_kv"]
    assert (cycle.start_time, cycle.end_time) == (100_000_000_000, 100_002_000_000)
    assert cycle.attributes == {"scalesim.mode": "active", "scalesim.steps_started": 2}
    assert (load.start_time, load.end_time) == (100_250_000_000, 101_500_000_000)
    assert load.parent.span_id == register.parent.span_id == cycle.context.span_id
    assert load.attributes["scalesim.agent"] == load.attributes["scalesim.key"] == "sim/a"
    assert load.attributes["scalesim.computed_tokens"] == 64
    assert register.attributes["scalesim.key"] == "ada" and "scalesim.agent" not in register.attributes


def test_the_same_step_once_more_lies_under_the_round_that_started_it_again(scene: Scene) -> None:
    scene.cycle(STEP)
    scene.ended(STEP)
    scene.cycle(STEP)
    scene.ended(STEP)
    first, _, second, again = scene.spans()
    assert again.parent.span_id == second.context.span_id != first.context.span_id


def test_a_round_that_started_nothing_leaves_no_trace(scene: Scene) -> None:
    scene.cycle()
    scene.cycle()
    assert scene.spans() == []


def test_what_failed_is_an_error_and_what_gave_way_is_none(scene: Scene) -> None:
    scene.ended(STEP, "failed: no such LoRA")
    scene.ended(STEP, "cancelled: requests wait")
    failed, cancelled = scene.spans()
    assert (failed.status.status_code, failed.status.description) == (
        *(StatusCode.ERROR, "failed: no such LoRA"),
    )
    assert cancelled.status.status_code is StatusCode.UNSET
    assert cancelled.attributes["scalesim.outcome"] == "cancelled" and cancelled.parent is None


def test_the_sidecar_tells_of_its_rounds_and_records(sidecar: Sidecar, scene: Scene) -> None:
    sidecar.traces, sidecar.mode = scene.traces, RunMode.PAUSED
    sidecar.cycle()
    sidecar.record(Record(101.5, "one", replace(STEP, key="sim/b"), "done", 0.5, 0))
    assert [span.attributes["scalesim.agent"] for span in scene.spans()] == ["sim/b"]


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """An OTLP collector of two lines: where it listens, and what it was told."""
    told: list[ExportTraceServiceRequest] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            told.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", told
        finally:
            server.shutdown()
            thread.join()


def test_the_environment_says_where_spans_go(monkeypatch: pytest.MonkeyPatch) -> None:
    with collector() as (url, told):
        known = url.replace("//", "//user:secret@")
        environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": known, "OTEL_EXPORTER_OTLP_COMPRESSION": "none"}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with capture_logs() as lines:
            traces = open_traces(environment)
        assert traces is not None and lines[0]["endpoint"] == f"http://***@{url.removeprefix('http://')}"
        traces.step(Record(101.5, "one", STEP, "done", 1.25, 64))
        traces.close()
    (spans,) = (scope for request in told for one in request.resource_spans for scope in one.scope_spans)
    assert [span.name for span in spans.spans] == ["load prefix_kv"]
    resource = {one.key: one.value.string_value for one in told[0].resource_spans[0].resource.attributes}
    assert resource["service.name"] == "scalesimd"


def test_a_collector_that_does_not_answer_holds_up_no_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "LAST_TRACES_SECONDS", 0.05)
    answered = Event()

    class Silent(InMemorySpanExporter):
        def shutdown(self) -> None:
            answered.wait()

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(Silent()))
    started = monotonic()
    Traces(provider).close()
    assert monotonic() - started < 5
    answered.set()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_SERVICE_NAME": "sidecar"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
    ],
)
def test_where_no_traces_are_wanted_there_are_none(environment: dict[str, str]) -> None:
    with capture_logs() as lines:
        assert open_traces(environment) is None
    assert lines == []


def test_a_protocol_that_is_not_spoken_is_said_and_stops_nothing() -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }
    with capture_logs() as lines:
        assert open_traces(environment) is None
    assert [(line["event"], line["remedy"]) for line in lines] == [
        ("no traces", "set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf")
    ]


def test_without_traces_neither_sdk_nor_exporter_is_loaded() -> None:
    program = (
        "import sys, scalesim_daemon.loop; "
        "import scalesim_daemon.tracing as tracing; assert tracing.open_traces({}) is None; "
        "print([name for name in sys.modules if name.startswith(('opentelemetry.', 'google.protobuf'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
