"""Prometheus metrics, read from the sidecar's state when they are asked for. No label names an agent."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from scalesim_daemon import report_estimators
from scalesim_daemon.loop import EnginePlan, Sidecar
from scalesim_daemon.report_engines import free_blocks
from scalesim_daemon.view import EngineView
from scalesim_estimators import Figures

# What the gate counts, and the metric that shows it.
GATE_METRICS = {
    "events": ("scalesim_events", "Events that were well formed."),
    "duplicates": ("scalesim_duplicates", "Messages that had come before."),
    "gaps": ("scalesim_gaps", "Holes in a source's sequence numbers."),
}
# What the gateway counts in the sidecar, by what the metric's label says.
GATEWAY_CALLS = {"agents": "calls_of_agents", "nobody": "calls_of_nobody"}
# Messages and events that were ignored, by why.
REFUSALS = ("malformed", "unknown", "unopened", "fenced", "refused_versions")

Family = TypeVar("Family", GaugeMetricFamily, CounterMetricFamily)
Reading = tuple[str, str, Callable[[EngineView], float | None]]
ENGINE_GAUGES: tuple[Reading, ...] = (
    ("scalesim_engine_up", "Whether the engine answers.", lambda view: view.reachable),
    ("scalesim_engine_known", "Whether the engine's blocks are known.", lambda view: view.known),
    (
        "scalesim_blocks_capacity",
        "Device blocks that requests can use.",
        lambda view: view.capacity,
    ),
    (
        "scalesim_blocks_resident",
        "Device blocks whose content is known.",
        lambda view: view.tree.resident if view.tree and view.known else None,
    ),
    ("scalesim_blocks_free", "Device blocks that hold nothing reusable.", free_blocks),
    ("scalesim_loras_on_device", "LoRAs in device places.", lambda view: len(view.loras.device)),
)
ENGINE_COUNTERS: tuple[Reading, ...] = (
    ("scalesim_engine_restarts", "Restarts of the engine.", lambda view: view.restarts),
    (
        "scalesim_blocks_lost",
        "Blocks of agents' prefixes that the engine evicted.",
        lambda view: view.lost_blocks,
    ),
    (
        "scalesim_unpredicted_evictions",
        "Evictions that the order of blocks didn't foresee.",
        lambda view: view.tree.unpredicted if view.tree else 0,
    ),
    ("scalesim_prefetches", "Prefetches, one per agent and invocation.", lambda view: view.ledger.prefetches),
    ("scalesim_prefetches_used", "Prefetches that an invocation found.", lambda view: view.ledger.used),
    (
        "scalesim_prefetches_wasted",
        "Prefetches that were gone when the invocation came.",
        lambda view: view.ledger.wasted,
    ),
    ("scalesim_prefetched_tokens", "Tokens computed for prefetches.", lambda view: view.ledger.tokens),
    (
        "scalesim_prefetched_tokens_wasted",
        "Tokens computed for prefetches and not used.",
        lambda view: view.ledger.tokens_wasted,
    ),
    ("scalesim_touches", "Requests that only refreshed what was there.", lambda view: view.ledger.touches),
    (
        "scalesim_steps_cancelled",
        "Steps stopped because the engine was needed.",
        lambda view: view.ledger.cancelled,
    ),
    ("scalesim_steps_failed", "Steps that the engine did not carry out.", lambda view: view.ledger.failed),
)

ESTIMATOR_GAUGES: tuple[tuple[str, str, Callable[[Figures], float | None]], ...] = (
    (
        "scalesim_estimator_order_pairs",
        "Pairs of invocations that the estimator decided.",
        lambda figures: figures.pairs,
    ),
    (
        "scalesim_estimator_order_accuracy_ratio",
        "Share of the pairs that the estimator decided that were put in the right order.",
        lambda figures: figures.order_accuracy,
    ),
    (
        "scalesim_estimator_recency_accuracy_ratio",
        "Share of the pairs that the estimator decided that recency puts in the right order.",
        lambda figures: figures.recency_accuracy,
    ),
    (
        "scalesim_estimator_coverage_ratio",
        "Share of the invocations that the estimator foresaw.",
        lambda figures: figures.coverage,
    ),
    (
        "scalesim_estimator_lead_error_clock_units",
        "Mean time between due and invocation, in units of the streams' clock.",
        lambda figures: figures.lead_error,
    ),
    (
        "scalesim_estimator_hits_ratio",
        "Share of the invocations that the estimator foresaw that came in time.",
        lambda figures: figures.hit_rate,
    ),
    (
        "scalesim_estimator_confidence_ratio",
        "Mean confidence of the estimator in the invocations that it foresaw.",
        lambda figures: figures.confidence,
    ),
    (
        "scalesim_estimator_brier_score_ratio",
        "Mean squared difference between confidence and outcome.",
        lambda figures: figures.brier,
    ),
)


def build_registry(sidecar: Sidecar) -> CollectorRegistry:
    """Return a registry of its own: several daemons in one process don't meet."""
    registry = CollectorRegistry()
    registry.register(SidecarCollector(sidecar))
    return registry


class SidecarCollector(Collector):
    """Collect in the event loop's thread: the state belongs to it."""

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        yield from self._feed()
        if self._sidecar.gateway_url:
            yield from self._gateway()
        yield from self._agents()
        yield from self._estimators()
        yield from self._engines()
        yield from self._loop()

    def _feed(self) -> Iterator[Metric]:
        gate = self._sidecar.gate
        for count, (name, text) in GATE_METRICS.items():
            yield CounterMetricFamily(name, text, value=gate.counts[count])
        yield _labelled(
            CounterMetricFamily("scalesim_refused", "Events and messages that were ignored.", labels=["why"]),
            ((why, gate.counts[why]) for why in REFUSALS),
        )
        streams = gate.streams()
        yield GaugeMetricFamily("scalesim_sources", "Open streams of events.", value=len(streams))
        stale = sum(is_stale for _, is_stale in streams.values())
        yield GaugeMetricFamily(
            "scalesim_sources_stale", "Streams of which something is missing.", value=stale
        )

    def _gateway(self) -> Iterator[Metric]:
        counts = self._sidecar.counts
        calls = CounterMetricFamily("scalesim_gateway_calls", "Calls through the gateway.", labels=["of"])
        yield _labelled(calls, ((whose, counts[count]) for whose, count in GATEWAY_CALLS.items()))
        yield CounterMetricFamily(
            "scalesim_gateway_calls_held", "Calls that waited for their LoRA.", value=counts["calls_held"]
        )

    def _agents(self) -> Iterator[Metric]:
        population = self._sidecar.population
        yield GaugeMetricFamily(
            "scalesim_agents", "Agents that streams speak of.", value=len(population.agents)
        )
        yield GaugeMetricFamily(
            "scalesim_agents_due", "Agents whose next invocation is foreseen.", value=len(population.board)
        )
        yield GaugeMetricFamily(
            "scalesim_invocations_in_flight",
            "Announced invocations being served.",
            value=population.in_flight(),
        )
        order = report_estimators.order(population)
        yield GaugeMetricFamily(
            "scalesim_distance_order_pairs",
            "Scored pairs of invocations that the accuracy rests on.",
            value=order.pairs,
        )
        if order.order_accuracy is not None and order.recency_accuracy is not None:
            yield _labelled(
                GaugeMetricFamily(
                    "scalesim_distance_order_accuracy_ratio",
                    "Share of pairs of invocations that were put in the right order, by what orders them.",
                    labels=["by"],
                ),
                (("estimates", order.order_accuracy), ("recency", order.recency_accuracy)),
            )

    def _estimators(self) -> Iterator[Metric]:
        known = report_estimators.by_clock(self._sidecar.population)
        admitted = GaugeMetricFamily(
            "scalesim_estimator_admitted_streams",
            "Streams in which the estimator is admitted.",
            labels=["estimator", "clock"],
        )
        for (name, clock), (streams, _) in known.items():
            admitted.add_metric([name, clock], streams)
        yield admitted
        for metric, text, read in ESTIMATOR_GAUGES:
            family = GaugeMetricFamily(metric, text, labels=["estimator", "clock"])
            for (name, clock), (_, figures) in known.items():
                value = read(figures)
                if value is not None:
                    family.add_metric([name, clock], value)
            yield family

    def _engines(self) -> Iterator[Metric]:
        for name, text, read in ENGINE_GAUGES:
            yield _labelled(GaugeMetricFamily(name, text, labels=["engine"]), self._read_engines(read))
        for name, text, read in ENGINE_COUNTERS:
            yield _labelled(CounterMetricFamily(name, text, labels=["engine"]), self._read_engines(read))

    def _read_engines(self, read: Callable[[EngineView], float | None]) -> Iterator[tuple[str, float]]:
        for engine, driver in self._sidecar.drivers.items():
            value = read(driver.view)
            if value is not None:
                yield engine, value

    def _loop(self) -> Iterator[Metric]:
        sidecar = self._sidecar
        yield CounterMetricFamily("scalesim_cycles", "Rounds of the loop.", value=sidecar.counts["cycles"])
        planned = GaugeMetricFamily(
            "scalesim_plan_steps", "Steps of the current plan.", labels=["engine", "kind"]
        )
        in_flight = GaugeMetricFamily(
            "scalesim_steps_in_flight", "Steps being carried out.", labels=["engine"]
        )
        for name, driver in sidecar.drivers.items():
            plan = sidecar.plans.get(name, EnginePlan())
            planned.add_metric([name, "prefix_kv"], len(plan.blocks))
            planned.add_metric([name, "lora"], len(plan.loras))
            in_flight.add_metric([name], len(driver.in_flight))
        yield planned
        yield in_flight
        mirror = sidecar.mirror
        if mirror is None:
            return
        yield GaugeMetricFamily(
            "scalesim_mirror_up", "Whether the store is reachable.", value=float(mirror.connected)
        )
        yield GaugeMetricFamily(
            "scalesim_mirror_lag_p99_seconds",
            "From a change until it was in the store, 99th percentile.",
            value=mirror.lag_p99,
        )
        yield GaugeMetricFamily(
            "scalesim_mirror_pending", "Agents whose newest state isn't in the store.", value=mirror.pending
        )


def _labelled(family: Family, values: Iterable[tuple[str, float]]) -> Family:
    """Add a sample for each value of the family's one label."""
    for label, value in values:
        family.add_metric([label], value)
    return family
