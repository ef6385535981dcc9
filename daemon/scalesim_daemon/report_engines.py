"""Engines, plans and outcomes as people see them. Reads, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from time import monotonic

from scalesim_daemon import report_estimators
from scalesim_daemon.api_models import (
    BlockState,
    Budgets,
    ClockState,
    EnginePlanState,
    Engines,
    EngineState,
    HostTierState,
    LeaseState,
    LedgerState,
    LoraState,
    MissingCapability,
    PlannedStep,
    PlanState,
    PressureState,
    Report,
    Sources,
    SourceState,
)
from scalesim_daemon.fleet import lease_clock
from scalesim_daemon.fleet.lease import Lease
from scalesim_daemon.ledger import Ledger
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.planning import EnginePlan
from scalesim_daemon.settings import HostTierSettings
from scalesim_daemon.view import EngineView
from scalesim_estimators import Blend, Figures


def engines(sidecar: Sidecar) -> Engines:
    """Return every engine's state."""
    tiers = {engine.name: engine.host_tier for engine in sidecar.settings.engines}
    settings = sidecar.settings
    return Engines(
        engines=[_engine(driver.view, tiers.get(name)) for name, driver in sidecar.drivers.items()],
        budgets=Budgets(
            staging=settings.loras.staging_bytes,
            staging_free=sidecar.library.inventory()[1],
            models=settings.models.budget_bytes,
        ),
    )


def plan(sidecar: Sidecar, limit: int) -> PlanState:
    """Return the first `limit` steps of every engine's plan."""
    states = []
    for name, driver in sidecar.drivers.items():
        planned = sidecar.plans.get(name, EnginePlan())
        states.append(
            EnginePlanState(
                engine=name,
                blocks=[PlannedStep.model_validate(step) for step in planned.blocks[:limit]],
                blocks_total=len(planned.blocks),
                loras=[PlannedStep.model_validate(step) for step in planned.loras[:limit]],
                loras_total=len(planned.loras),
                in_flight=[PlannedStep.model_validate(step) for step in driver.in_flight],
            )
        )
    models = [PlannedStep.model_validate(step) for step in sidecar.model_plan]
    return PlanState(mode=sidecar.mode, engines=states, models=models)


def report(sidecar: Sidecar) -> Report:
    """Return what the prefetches of all engines came to, and how good the estimates were."""
    order = report_estimators.order(sidecar.population)
    return Report(
        **_sums(driver.view.ledger for driver in sidecar.drivers.values()),
        order_accuracy=order.order_accuracy,
        order_pairs=order.pairs,
        recency_accuracy=order.recency_accuracy,
    )


def sources(sidecar: Sidecar) -> Sources:
    """Return every stream's state."""
    clocks, qualities = sidecar.population.clocks(), sidecar.population.qualities()
    states = []
    for name, (stream, stale) in sorted(sidecar.gate.streams().items()):
        known = clocks.get(name)
        order = Figures() if known is None else qualities[name].figures()[Blend.name]
        states.append(
            SourceState(
                source=name,
                simulation=stream.simulation,
                incarnation=stream.incarnation,
                stale=stale,
                clock=None if known is None else ClockState.model_validate(known[1]),
                order_accuracy=order.order_accuracy,
                order_pairs=order.pairs,
            )
        )
    gate = sidecar.gate
    return Sources(sources=states, counts=dict(gate.counts), unknown_types=dict(gate.unknown_types))


def free_blocks(view: EngineView) -> int | None:
    """Return how many device blocks hold nothing that could be reused; None where it isn't known."""
    if view.tree is None or view.capacity is None or not view.known:
        return None
    return max(0, view.capacity - view.tree.resident)


def _engine(view: EngineView, tier: HostTierSettings | None) -> EngineState:
    info, tree, loras = view.info, view.tree, view.loras
    return EngineState(
        name=view.name,
        lease=None if view.lease is None else _lease(view.lease),
        reachable=view.reachable,
        unreachable_why=view.error,
        known=view.known,
        unknown_why=view.unknown_why,
        engine=info.engine if info else None,
        version=info.version if info else None,
        incarnation=info.incarnation if info else None,
        base_models=list(info.base_models) if info else [],
        max_model_len=info.max_model_len if info else None,
        asleep=view.asleep,
        restarts=view.restarts,
        blocks=BlockState(
            size=info.block_size if info else None,
            capacity=view.capacity,
            resident=tree.resident if tree is not None and view.known else None,
            free=free_blocks(view),
        ),
        loras=LoraState(
            registered=sorted(loras.registered),
            device=list(loras.device),
            host=list(loras.host),
            device_places=loras.device_places,
            host_places=loras.host_places,
            exact=loras.exact,
        ),
        host_tier=None if tier is None else _host_tier(tier.segment),
        pressure=None if view.quiet.pressure is None else PressureState.model_validate(view.quiet.pressure),
        shared=view.driven and view.quiet.shared(monotonic()),
        model_bytes=view.model_bytes,
        lost_blocks=view.lost_blocks,
        unpredicted=tree.unpredicted if tree is not None else 0,
        capabilities={
            kind: [str(flag.name).lower() for flag in flags]
            for kind, flags in (info.capabilities.items() if info else ())
        },
        missing=[MissingCapability.model_validate(missing) for missing in (info.missing if info else ())],
        ledger=LedgerState(**_sums([view.ledger])),
    )


def _lease(lease: Lease) -> LeaseState:
    now = lease_clock.now()
    holder = lease.held_by(now)
    known = lease.holder if holder else None
    return LeaseState(
        phase=lease.phase(now),
        holder=holder or None,
        token=known.token if known else None,
        since=known.since if known else None,
        why_not=lease.why_not(now),
    )


def _host_tier(segment: Path) -> HostTierState:
    try:
        size = segment.stat().st_size
    except OSError:
        size = None
    return HostTierState(segment=str(segment), bytes=size)


def _sums(ledgers: Iterable[Ledger]) -> dict[str, int]:
    sums = dict.fromkeys(LedgerState.model_fields, 0)
    for ledger in ledgers:
        open_prefetches, open_tokens = ledger.pending
        sums["prefetches"] += ledger.prefetches
        sums["prefetches_used"] += ledger.used
        sums["prefetches_wasted"] += ledger.wasted
        sums["prefetches_pending"] += open_prefetches
        sums["prefetched_tokens"] += ledger.tokens
        sums["prefetched_tokens_wasted"] += ledger.tokens_wasted
        sums["prefetched_tokens_pending"] += open_tokens
        sums["touches"] += ledger.touches
        sums["cancelled"] += ledger.cancelled
        sums["failed"] += ledger.failed
    return sums
