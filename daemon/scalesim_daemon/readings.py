"""What metrics say of an engine and of an estimator: name, meaning, and where it is read. None is a value that is not
known."""

from __future__ import annotations

from collections.abc import Callable

from scalesim_daemon.blocks import BlockTree
from scalesim_daemon.report_engines import free_blocks
from scalesim_daemon.view import EngineView
from scalesim_estimators import Figures

Reading = tuple[str, str, Callable[[EngineView], float | None]]
ENGINE_GAUGES: tuple[Reading, ...] = (
    ("scalesim_engine_up", "Whether the engine answers.", lambda view: view.reachable),
    (
        "scalesim_engine_driven",
        "Whether this daemon may act on the engine: it holds its lease, or has it to itself.",
        lambda view: view.driven,
    ),
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
    ("scalesim_engine_asleep", "Whether the engine's model sleeps in host memory.", lambda view: view.asleep),
    (
        "scalesim_engine_running_requests",
        "Requests that the engine works on, by its own count.",
        lambda view: view.quiet.pressure.running if view.quiet.pressure else None,
    ),
    (
        "scalesim_engine_waiting_requests",
        "Requests that wait in the engine, by its own count.",
        lambda view: view.quiet.pressure.waiting if view.quiet.pressure else None,
    ),
    (
        "scalesim_model_bytes",
        "Device memory that the engine's model takes while it is awake.",
        lambda view: view.model_bytes,
    ),
    (
        "scalesim_loras_registered",
        "LoRAs whose name the engine knows.",
        lambda view: len(view.loras.registered),
    ),
    (
        "scalesim_prefetches_pending",
        "Prefetches whose invocation is yet to come.",
        lambda view: view.ledger.pending[0],
    ),
)
ENGINE_COUNTERS: tuple[Reading, ...] = (
    (
        "scalesim_leases_taken",
        "How often this daemon took the engine's lease.",
        lambda view: view.lease.taken if view.lease else None,
    ),
    (
        "scalesim_leases_lost",
        "How often the engine's lease was over before this daemon had given it away.",
        lambda view: view.lease.lost if view.lease else None,
    ),
    ("scalesim_engine_restarts", "Restarts of the engine.", lambda view: view.restarts),
    (
        "scalesim_blocks_lost",
        "Blocks of agents' prefixes that the engine evicted.",
        lambda view: view.lost_blocks,
    ),
    (
        "scalesim_evictions",
        "Device blocks that the engine evicted.",
        lambda view: view.tree.evictions if isinstance(view.tree, BlockTree) else None,
    ),
    (
        "scalesim_unpredicted_evictions",
        "Evictions that the order of blocks or slots didn't foresee.",
        lambda view: view.tree.unpredicted if view.tree else 0,
    ),
    ("scalesim_invocations", "Announced invocations that were the engine's.", lambda view: view.announced),
    (
        "scalesim_invoked_prefix_tokens",
        "Tokens of the known prefixes that invocations came with.",
        lambda view: view.ledger.prefix_tokens,
    ),
    (
        "scalesim_invoked_found_tokens",
        "Tokens of these that were on the device.",
        lambda view: view.ledger.found_tokens,
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
        "scalesim_prefetched_wasted_tokens",
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
