"""The daemon and its engines: whether all is well, what they hold, what is planned, and how good the estimates were."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from scalesim_daemon.api_models import (
    Engines,
    EngineState,
    Estimators,
    EstimatorState,
    Health,
    PlannedStep,
    PlanState,
    Ready,
    Report,
    Sources,
    SourceState,
)
from scalesim_daemon.ctl.views.texts import (
    NONE,
    UNKNOWN,
    clock,
    line,
    number,
    seconds,
    share,
    size,
    step_words,
    table,
)


def status(
    url: str, health: Health, ready: Ready, known: Engines, sources: Sources, report: Report
) -> RenderableType:
    """The daemon at a glance."""
    state = "ready" if ready.ready else "not ready"
    head = line(f"scalesimd {health.version} at {url}: {state}, mode {health.mode}", "bold")
    reasons = [line(f"  {reason}", "yellow") for reason in ready.reasons]
    return Group(
        head,
        *reasons,
        table(
            ("engine", "state", "version", "blocks", "free", "LoRAs", "running", "waiting", "missing"),
            [
                (*_engine_row(engine), ", ".join(missing.what for missing in engine.missing) or NONE)
                for engine in known.engines
            ],
        ),
        table(
            ("source", "simulation", "clock", "s per unit", "state"),
            [_source_row(source) for source in sources.sources],
        ),
        *outcome(report),
    )


def outcome(report: Report) -> list[Text]:
    """What the prefetches came to, and how good the estimates were."""
    return [
        line(
            f"prefetches: {report.prefetches}, used {report.prefetches_used}, "
            f"wasted {report.prefetches_wasted}, pending {report.prefetches_pending}; "
            f"tokens computed for them {report.prefetched_tokens}, wasted {report.prefetched_tokens_wasted}"
        ),
        line(
            f"order of calls foreseen: {share(report.order_accuracy)} of {report.order_pairs} pairs "
            f"(by recency {share(report.recency_accuracy)})"
        ),
    ]


def engines(known: Engines) -> RenderableType:
    """Each engine with its budgets, what was lost there, and what would let us do more."""
    budgets, lines = known.budgets, []
    for engine in known.engines:
        # Remedies are for copying: they aren't put into a table, where they would be cut into lines.
        lines += [line(f"{engine.name} lacks {one.what}: {one.remedy}") for one in engine.missing]
    models = NONE if budgets.models is None else size(budgets.models)
    return Group(
        table(
            ("engine", "state", "version", "blocks", "free", "LoRAs", "running", "waiting"),
            [_engine_row(engine) for engine in known.engines],
        ),
        table(
            (
                "engine",
                "LoRAs in host",
                "host tier",
                "prefetches",
                "used",
                "wasted",
                "lost blocks",
                "restarts",
            ),
            [_holdings_row(engine) for engine in known.engines],
        ),
        line(
            f"copies of LoRAs: {size(budgets.staging_free)} of {size(budgets.staging)} free; models {models}"
        ),
        *lines,
    )


def plan(state: PlanState) -> RenderableType:
    """What is to be done, and what is being done."""
    rows, left = [], 0
    for engine in state.engines:
        planned = [*engine.blocks, *engine.loras]
        left += engine.blocks_total + engine.loras_total - len(planned)
        rows += [_step_row(engine.engine, "now", step) for step in engine.in_flight]
        rows += [_step_row(engine.engine, "planned", step) for step in planned]
    rows += [_step_row("all", "planned", step) for step in state.models]
    more = [line(f"{left} more steps")] if left else []
    return Group(
        line(f"mode {state.mode}", "bold"),
        table(("engine", "when", "step", "of", "seconds", "why", "may displace"), rows),
        *more,
    )


def estimators(known: Estimators) -> RenderableType:
    """Each stream's estimators, and how good they were."""
    return Group(
        table(
            (
                "source",
                "estimator",
                "admitted",
                "pairs",
                "in order",
                "without it",
                "by recency",
                "foreseen",
                "off by",
                "in time",
                "confidence",
                "Brier",
            ),
            [_estimator_row(estimator) for estimator in known.estimators],
        ),
        line(
            "in order: of the pairs of calls that it decides, those that are right with it, without it, by recency"
        ),
        line("in time: of the calls that it foresaw; its confidence should be the same"),
    )


def engine_state(engine: EngineState) -> str:
    """Whether an engine can be worked with."""
    if not engine.reachable:
        return f"down: {engine.unreachable_why}"
    if engine.lease is not None and engine.lease.why_not is not None:
        return f"up, {engine.lease.why_not}"
    if engine.asleep:
        return "up, asleep"
    return "up" if engine.known else f"up, blocks unknown: {engine.unknown_why}"


def _engine_row(engine: EngineState) -> tuple[str, ...]:
    pressure, loras = engine.pressure, engine.loras
    return (
        engine.name,
        engine_state(engine),
        f"{engine.engine} {engine.version}" if engine.engine else UNKNOWN,
        f"{number(engine.blocks.resident)}/{number(engine.blocks.capacity)}",
        number(engine.blocks.free),
        f"{len(loras.device)}/{number(loras.device_places)}",
        number(pressure.running if pressure else None),
        number(pressure.waiting if pressure else None),
    )


def _holdings_row(engine: EngineState) -> tuple[str, ...]:
    ledger, tier = engine.ledger, engine.host_tier
    return (
        engine.name,
        f"{len(engine.loras.host)}/{number(engine.loras.host_places)}",
        NONE if tier is None else size(tier.bytes),
        str(ledger.prefetches),
        str(ledger.prefetches_used),
        str(ledger.prefetches_wasted),
        str(engine.lost_blocks),
        str(engine.restarts),
    )


def _step_row(engine: str, when: str, step: PlannedStep) -> tuple[str, ...]:
    victims = ", ".join(step.victims) or NONE
    return (engine, when, step_words(step), step.key, seconds(step.seconds), step.reason, victims)


def _source_row(source: SourceState) -> tuple[str, ...]:
    told = source.clock
    return (
        source.source,
        source.simulation,
        clock(told),
        UNKNOWN if told is None or told.pace is None else f"{told.pace:.3g}",
        "stale" if source.stale else "complete",
    )


def _estimator_row(estimator: EstimatorState) -> tuple[str, ...]:
    accuracy = estimator.accuracy
    return (
        estimator.source,
        estimator.estimator,
        "yes" if estimator.admitted else "no",
        str(accuracy.pairs),
        share(accuracy.order_accuracy),
        share(accuracy.accuracy_without),
        share(accuracy.recency_accuracy),
        share(accuracy.coverage),
        UNKNOWN if accuracy.lead_error is None else f"{accuracy.lead_error:.3g} {estimator.clock}",
        share(accuracy.hit_rate),
        share(accuracy.confidence),
        UNKNOWN if accuracy.brier is None else f"{accuracy.brier:.3f}",
    )
