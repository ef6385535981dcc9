"""How `scalesimctl` shows the daemon's answers. Ids are shown as text, never as markup."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from scalesim_daemon.api_models import (
    AgentDetail,
    AgentsPage,
    AgentSummary,
    ClockState,
    Decision,
    Engines,
    EngineState,
    Estimators,
    EstimatorState,
    Health,
    Place,
    Ready,
    Report,
    Sources,
    SourceState,
)
from scalesim_daemon.doctor import Diagnosis, abilities

UNKNOWN = "?"
NONE = "-"


def status(
    url: str, health: Health, ready: Ready, engines: Engines, sources: Sources, report: Report
) -> RenderableType:
    """The daemon at a glance."""
    state = "ready" if ready.ready else "not ready"
    head = _line(f"scalesimd {health.version} at {url}: {state}, mode {health.mode}", "bold")
    reasons = [_line(f"  {reason}", "yellow") for reason in ready.reasons]
    return Group(
        head,
        *reasons,
        _table(
            ("engine", "state", "version", "blocks", "free", "LoRAs", "running", "waiting", "missing"),
            [_engine_row(engine) for engine in engines.engines],
        ),
        _table(
            ("source", "simulation", "clock", "s per unit", "state"),
            [_source_row(source) for source in sources.sources],
        ),
        _line(
            f"prefetches: {report.prefetches}, used {report.prefetches_used}, "
            f"wasted {report.prefetches_wasted}, pending {report.prefetches_pending}; "
            f"tokens computed for them {report.prefetched_tokens}, wasted {report.prefetched_tokens_wasted}"
        ),
        _line(
            f"order of calls foreseen: {_share(report.order_accuracy)} of {report.order_pairs} pairs "
            f"(by recency {_share(report.recency_accuracy)})"
        ),
    )


def agents(page: AgentsPage) -> RenderableType:
    """Agents, the nearest first."""
    return Group(
        _table(
            ("agent", "distance", "seconds", "why", "memory", "on device"),
            [_agent_row(agent) for agent in page.agents],
        ),
        _line(f"{len(page.agents)} of {page.total} agents"),
    )


def estimators(known: Estimators) -> RenderableType:
    """Each stream's estimators, and how good they were."""
    return Group(
        _table(
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
        _line(
            "in order: of the pairs of calls that it decides, those that are right with it, without it, by recency"
        ),
        _line("in time: of the calls that it foresaw; its confidence should be the same"),
    )


def explanation(agent: AgentDetail) -> RenderableType:
    """One agent, and why."""
    head = [
        _line(f"{agent.key}: {_distance(agent)}", "bold"),
        _line(f"  {agent.why}"),
        _line(f"  {agent.in_flight} in flight, {agent.invocations} invocations so far"),
    ]
    if agent.confidence is not None:
        head.append(_line(f"  confidence {agent.confidence:.2f}"))
    if agent.pinned_until is not None:
        head.append(_line(f"  pinned until {_time(agent.pinned_until)}"))
    places = _table(
        ("engine", "memory", "item", "state", "where"), [_place_row(place) for place in agent.places]
    )
    decisions = _table(
        ("at", "engine", "step", "of", "why", "result"),
        [_decision_row(decision) for decision in agent.decisions],
    )
    return Group(*head, places, decisions)


def diagnosis(found: Diagnosis) -> RenderableType:
    """What an engine allows, and what it would take to allow more."""
    if found.info is None:
        return failure(f"{found.url}: {found.problem}", found.remedy)
    info = found.info
    sizes = [f"models {', '.join(info.base_models)}"]
    if info.device_blocks is not None:
        sizes.append(f"{info.device_blocks} blocks of {info.block_size} tokens")
    if info.max_model_len is not None:
        sizes.append(f"prompts up to {info.max_model_len} tokens")
    if info.lora_slots is not None:
        sizes.append(f"{info.lora_slots} LoRAs on the device")
    rows = [(kind.value, "\n".join(able)) for kind, able in abilities(info).items()]
    lines = [_line("Nothing is missing.", "green")]
    if info.missing:
        lines = [_line("To allow more, add to the engine:", "bold")]
        # Remedies are for copying: they aren't put into a table, where they would be cut into lines.
        lines += [_line(f"  {missing.what}: {missing.remedy}") for missing in info.missing]
    return Group(
        _line(f"{info.engine} {info.version} at {found.url}", "bold"),
        _line(f"  {', '.join(sizes)}"),
        _table(("memory", "what the sidecar can do here"), rows),
        *lines,
    )


def failure(problem: str, remedy: str | None) -> RenderableType:
    """What went wrong, and what to do about it."""
    lines = [_line(problem, "red")]
    if remedy is not None:
        lines.append(_line(f"  {remedy}"))
    return Group(*lines)


def _engine_row(engine: EngineState) -> tuple[str, ...]:
    state = "up" if engine.reachable else f"down: {engine.unreachable_why}"
    if engine.reachable and not engine.known:
        state = f"up, blocks unknown: {engine.unknown_why}"
    pressure, loras = engine.pressure, engine.loras
    return (
        engine.name,
        state,
        f"{engine.engine} {engine.version}" if engine.engine else UNKNOWN,
        f"{_number(engine.blocks.resident)}/{_number(engine.blocks.capacity)}",
        _number(engine.blocks.free),
        f"{len(loras.device)}/{_number(loras.device_places)}",
        _number(pressure.running if pressure else None),
        _number(pressure.waiting if pressure else None),
        ", ".join(missing.what for missing in engine.missing) or NONE,
    )


def _source_row(source: SourceState) -> tuple[str, ...]:
    clock = source.clock
    return (
        source.source,
        source.simulation,
        _clock(clock),
        UNKNOWN if clock is None or clock.pace is None else f"{clock.pace:.3g}",
        "stale" if source.stale else "complete",
    )


def _estimator_row(estimator: EstimatorState) -> tuple[str, ...]:
    accuracy = estimator.accuracy
    return (
        estimator.source,
        estimator.estimator,
        "yes" if estimator.admitted else "no",
        str(accuracy.pairs),
        _share(accuracy.order_accuracy),
        _share(accuracy.accuracy_without),
        _share(accuracy.recency_accuracy),
        _share(accuracy.coverage),
        UNKNOWN if accuracy.lead_error is None else f"{accuracy.lead_error:.3g} {estimator.clock}",
        _share(accuracy.hit_rate),
        _share(accuracy.confidence),
        UNKNOWN if accuracy.brier is None else f"{accuracy.brier:.3f}",
    )


def _agent_row(agent: AgentSummary) -> tuple[str, ...]:
    resident = ", ".join(
        f"{engine} {found.resident_blocks}/{found.blocks}" for engine, found in agent.engines.items()
    )
    return (
        agent.key,
        "in flight" if agent.in_flight else _distance(agent),
        NONE if agent.seconds is None else f"{agent.seconds:.3g}",
        agent.basis or NONE,
        ", ".join(agent.items) or NONE,
        resident or NONE,
    )


def _place_row(place: Place) -> tuple[str, ...]:
    where = ", ".join(tier.value for tier in place.tiers) or NONE
    if place.blocks is not None:
        where = f"{place.resident_blocks}/{place.blocks} blocks on the device"
    if place.registered is False:
        where += ", name not known to the engine"
    return (place.engine, place.kind.value, place.item, place.residency.value, where)


def _decision_row(decision: Decision) -> tuple[str, ...]:
    step = decision.step
    return (
        _time(decision.at),
        decision.engine,
        f"{step.action.value} {step.kind.value} {step.start}-{step.stop}",
        step.key,
        step.reason,
        f"{decision.result} ({decision.seconds:.2f} s, {decision.computed} tokens)",
    )


def _distance(agent: AgentSummary) -> str:
    return "far" if agent.distance is None else f"{agent.distance:g} {agent.unit}"


def _clock(clock: ClockState | None) -> str:
    return UNKNOWN if clock is None else f"{clock.now:g} {clock.kind}"


def _time(at: float) -> str:
    return datetime.fromtimestamp(at).astimezone().strftime("%H:%M:%S")


def _number(value: int | None) -> str:
    return UNKNOWN if value is None else str(value)


def _share(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.1%}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_line(cell) for cell in row))
    return table


def _line(text: str, style: str = "") -> Text:
    """Plain text; what isn't printable could steer the terminal and is shown as a replacement character."""
    return Text("".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text), style)
