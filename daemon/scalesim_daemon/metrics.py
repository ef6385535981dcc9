"""Prometheus metrics, read from the sidecar's state when they are asked for. No label names an agent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from time import monotonic
from typing import TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from scalesim_adapters.base import Tier
from scalesim_daemon import report_estimators
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.planning import EnginePlan
from scalesim_daemon.readings import ENGINE_COUNTERS, ENGINE_GAUGES, ESTIMATOR_GAUGES
from scalesim_daemon.settings import RunMode
from scalesim_daemon.view import EngineView

# What the gate counts, and the metric that shows it.
GATE_METRICS = {
    "events": ("scalesim_events", "Events that were well formed."),
    "duplicates": ("scalesim_duplicates", "Messages that had come before."),
    "gaps": ("scalesim_gaps", "Holes in a source's sequence numbers."),
}
# What the gateway counts in the sidecar, by what the metric's label says.
GATEWAY_CALLS = {"agents": "calls_of_agents", "nobody": "calls_of_nobody"}
# What goes wrong between daemons, by what the sidecar counts.
FLEET_METRICS = {
    "fleet_faults": "Failures among daemons that should not be, and that were begun anew from: see the log.",
    "fleet_words_refused": "Words of other daemons that make no sense, and were not taken in.",
    "fleet_decisions_lost": "Decisions that Redis didn't take under the engine's lease, or not in time.",
}
# Messages and events that were ignored, by why.
REFUSALS = ("malformed", "unknown", "unopened", "fenced", "foreign", "refused_versions")

Family = TypeVar("Family", GaugeMetricFamily, CounterMetricFamily)


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
        yield from self._process()
        yield from self._feed()
        if self._sidecar.gateway_url:
            yield from self._gateway()
        yield from self._agents()
        yield from self._estimators()
        yield from self._engines()
        yield from self._memory()
        yield from self._loop()
        yield from self._store()
        yield from self._fleet()

    def _process(self) -> Iterator[Metric]:
        sidecar = self._sidecar
        yield _labelled(
            GaugeMetricFamily(
                "scalesim_build_info", "Always 1; the label is the version.", labels=["version"]
            ),
            [(version("scalesim-sidecar"), 1.0)],
        )
        yield _labelled(
            GaugeMetricFamily("scalesim_mode", "Which mode the daemon is in: 1 for that.", labels=["mode"]),
            ((mode, float(mode is sidecar.mode)) for mode in RunMode),
        )
        yield GaugeMetricFamily("scalesim_tasks", "Tasks of the daemon's event loop.", value=_tasks())
        if sidecar.recorder is not None:
            yield GaugeMetricFamily(
                "scalesim_recording_left_bytes",
                "How much more may be recorded, 0 once the recording has ended.",
                value=sidecar.recorder.left_bytes,
            )

    def _feed(self) -> Iterator[Metric]:
        gate = self._sidecar.gate
        yield CounterMetricFamily(
            "scalesim_messages", "Messages that came in by any door.", value=self._sidecar.counts["messages"]
        )
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
            "scalesim_prefix_bytes",
            "What the contents of declared prefixes take, each once.",
            value=population.memories.prefixes.bytes,
        )
        yield CounterMetricFamily(
            "scalesim_prefixes_dropped",
            "Contents of prefixes that there was no room for: not prefetched until they are bound again.",
            value=population.memories.prefixes.dropped,
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
        known = (("estimates", order.order_accuracy), ("recency", order.recency_accuracy))
        yield _labelled(
            GaugeMetricFamily(
                "scalesim_distance_order_accuracy_ratio",
                "Share of pairs of invocations that were put in the right order, by what orders them.",
                labels=["by"],
            ),
            ((by, share) for by, share in known if share is not None),
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

    def _memory(self) -> Iterator[Metric]:
        sidecar = self._sidecar
        loras = GaugeMetricFamily(
            "scalesim_loras", "LoRAs in the engine's places.", labels=["engine", "tier"]
        )
        places = GaugeMetricFamily(
            "scalesim_lora_places", "Places that the engine has for LoRAs.", labels=["engine", "tier"]
        )
        reloads = CounterMetricFamily(
            "scalesim_reloads",
            "Loads of what had been loaded before and was lost unused.",
            labels=["engine", "kind"],
        )
        for name, driver in sidecar.drivers.items():
            known = driver.view.loras
            tiers = (
                (Tier.DEVICE, known.device, known.device_places),
                (Tier.HOST, known.host, known.host_places),
            )
            for tier, held, count in tiers:
                loras.add_metric([name, tier], len(held))
                if count is not None:
                    places.add_metric([name, tier], count)
            for kind, times in driver.view.ledger.reloads.items():
                reloads.add_metric([name, kind], times)
        yield from (loras, places, reloads)
        yield _labelled(
            GaugeMetricFamily(
                "scalesim_host_tier_bytes", "Shared memory for the plug-in's host tier.", labels=["engine"]
            ),
            (
                (one.name, one.host_tier.bytes)
                for one in sidecar.settings.engines
                if one.host_tier is not None
            ),
        )
        budget = sidecar.settings.loras.staging_bytes
        yield GaugeMetricFamily(
            "scalesim_lora_staging_budget_bytes", "Host memory that LoRAs' files may take.", value=budget
        )
        yield GaugeMetricFamily(
            "scalesim_lora_staged_bytes",
            "Host memory that LoRAs' files take.",
            value=budget - sidecar.library.inventory()[1],
        )
        if sidecar.settings.models.budget_bytes is not None:
            yield GaugeMetricFamily(
                "scalesim_models_budget_bytes",
                "Device memory that models which are awake may take together.",
                value=sidecar.settings.models.budget_bytes,
            )

    def _loop(self) -> Iterator[Metric]:
        sidecar = self._sidecar
        yield CounterMetricFamily("scalesim_cycles", "Rounds of the loop.", value=sidecar.counts["cycles"])
        yield GaugeMetricFamily(
            "scalesim_cycle_age_seconds",
            "Time since the last round of the loop began.",
            value=monotonic() - sidecar.ticked_at,
        )
        yield from sidecar.timings.collect()
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

    def _store(self) -> Iterator[Metric]:
        mirror = self._sidecar.mirror
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
        yield CounterMetricFamily(
            "scalesim_mirror_dropped",
            "Decisions that were never written to the store, since too many waited.",
            value=mirror.decisions_dropped,
        )

    def _fleet(self) -> Iterator[Metric]:
        counts = self._sidecar.counts
        for name, text in FLEET_METRICS.items():
            yield CounterMetricFamily(f"scalesim_{name}", text, value=counts[name])


def _tasks() -> int:
    """Count them; outside a loop there are none."""
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0


def _labelled(family: Family, values: Iterable[tuple[str, float]]) -> Family:
    """Add a sample for each value of the family's one label."""
    for label, value in values:
        family.add_metric([label], value)
    return family
