"""How long cycles and steps take, as histograms."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Histogram
from prometheus_client.core import Metric

from scalesim_daemon.records import Record

CYCLE_BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
# From a touch of a cached prefix to the waking of a model that is read from storage.
STEP_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0)


class Timings:
    """In no registry of the process: several daemons in one don't meet."""

    def __init__(self) -> None:
        self._cycles = Histogram(
            "scalesim_cycle_seconds", "Time per round of the loop.", registry=None, buckets=CYCLE_BOUNDS
        )
        self._steps = Histogram(
            "scalesim_step_seconds",
            "Time per step on an engine, by what came of it.",
            ["engine", "kind", "action", "outcome"],
            registry=None,
            buckets=STEP_BOUNDS,
        )

    def cycle(self, seconds: float) -> None:
        """A round took so long."""
        self._cycles.observe(seconds)

    def step(self, record: Record) -> None:
        """A step has ended, one way or another."""
        step = record.step
        self._steps.labels(record.engine, step.kind, step.action, record.outcome).observe(record.seconds)

    def collect(self) -> Iterator[Metric]:
        """Yield both, without the times at which the first of each kind came."""
        for family in (*self._cycles.collect(), *self._steps.collect()):
            family.samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
            yield family
