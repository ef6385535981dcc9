"""Traces by OpenTelemetry where `OTEL_*` variables ask for them: of rounds of the loop that start something, and of the
steps on engines that they start. Unlike metrics, spans name agents.

What is configured, and how, is OpenTelemetry's own to say: endpoint, headers, sampling and the name of the service. Its
SDK and exporter take memory that not every machine can spare: they are loaded only where traces are wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import version
from threading import Thread
from typing import TYPE_CHECKING

import structlog

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.plan import Step
from scalesim_daemon.records import Record
from scalesim_daemon.setting_values import redacted
from scalesim_daemon.settings import RunMode

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SPOKEN = "http/protobuf"
NANOSECONDS = 1_000_000_000
LAST_TRACES_SECONDS = 10.0

log = structlog.get_logger(__name__)


class Traces:
    """Spans are made when what they tell of is over, from what was measured anyway. Times are Unix times."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry import trace

        self._api = trace
        self._provider = provider
        self._tracer = provider.get_tracer("scalesim", version("scalesim-sidecar"))
        self._causes: dict[tuple[str, Step], Span] = {}

    def cycle(
        self, began: float, seconds: float, mode: RunMode, under_way: Mapping[str, Iterable[Step]]
    ) -> None:
        """A round is over, after which these steps are under way on each engine. One that started none is no news."""
        now = [(engine, step) for engine, steps in under_way.items() for step in steps]
        started = [key for key in now if key not in self._causes]
        self._causes = {key: self._causes[key] for key in now if key in self._causes}
        if not started:
            return
        attributes: dict[str, AttributeValue] = {
            "scalesim.mode": str(mode),
            "scalesim.steps_started": len(started),
        }
        span = self._tracer.start_span("cycle", attributes=attributes, start_time=_nanoseconds(began))
        span.end(_nanoseconds(began + seconds))
        self._causes.update((key, span) for key in started)

    def step(self, record: Record) -> None:
        """A step has ended: a span under that of the round that started it."""
        step = record.step
        cause = self._causes.pop((record.engine, step), None)
        attributes: dict[str, AttributeValue] = {
            "scalesim.engine": record.engine,
            "scalesim.action": str(step.action),
            "scalesim.kind": str(step.kind),
            "scalesim.key": step.key,
            "scalesim.reason": step.reason,
            "scalesim.outcome": record.outcome,
            "scalesim.computed_tokens": record.computed,
        }
        if step.kind is MemoryKind.PREFIX_KV:
            attributes["scalesim.agent"] = step.key
        span = self._tracer.start_span(
            f"{step.action} {step.kind}",
            context=None if cause is None else self._api.set_span_in_context(cause),
            kind=self._api.SpanKind.CLIENT,
            attributes=attributes,
            start_time=_nanoseconds(record.at - record.seconds),
        )
        if record.outcome == "failed":
            span.set_status(self._api.StatusCode.ERROR, record.result)
        span.end(_nanoseconds(record.at))

    def close(self) -> None:
        """Send what isn't sent yet. It blocks, 10 s at most: the SDK would try each batch for as long."""
        sending = Thread(target=self._provider.shutdown, name="last traces", daemon=True)
        sending.start()
        sending.join(LAST_TRACES_SECONDS)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * NANOSECONDS)


def open_traces(environment: Mapping[str, str]) -> Traces | None:
    """Return traces where the environment asks for them; where they can't be had the daemon goes on without."""
    if not _wanted(environment):
        return None
    protocol = next((environment[name] for name in PROTOCOLS if environment.get(name)), SPOKEN)
    if protocol != SPOKEN:
        log.warning("no traces", why=f"{protocol} is not spoken here", remedy=f"set {PROTOCOLS[1]}={SPOKEN}")
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        log.warning("no traces", why=str(error), remedy="install scalesim-sidecar[otel]")
        return None
    named = "OTEL_SERVICE_NAME" in environment or "service.name=" in environment.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    resource = Resource.create({} if named else {"service.name": "scalesimd"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    endpoint = next((environment[name] for name in ENDPOINTS if environment.get(name)), "default")
    log.info("traces", endpoint=redacted(endpoint))
    return Traces(provider)


def _wanted(environment: Mapping[str, str]) -> bool:
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true" or exporter not in ("", "otlp"):
        return False
    return exporter == "otlp" or any(environment.get(name) for name in ENDPOINTS)
