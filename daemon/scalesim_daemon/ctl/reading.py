"""Commands that ask a daemon what it knows, and change nothing."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from scalesim_adapters.base import MemoryKind, Tier
from scalesim_daemon.admin.models import ConfigState, OperationsPage, OperationState, PinsPage
from scalesim_daemon.api_models import (
    AgentDetail,
    AgentsPage,
    Engines,
    Estimators,
    Health,
    PlanState,
    Ready,
    Report,
    Residency,
    Sources,
)
from scalesim_daemon.api_queries import AgentOrder, DecisionsPage, ItemOrder, ItemsPage
from scalesim_daemon.ctl.client import NO, Daemon, in_path
from scalesim_daemon.ctl.formats import Shown
from scalesim_daemon.ctl.options import AgentArgument, Limit, Offset, agent_key, reading
from scalesim_daemon.ctl.views import agents as agent_views
from scalesim_daemon.ctl.views import engines as engine_views
from scalesim_daemon.ctl.views import steering as steering_views
from scalesim_daemon.plan import Action

Text = Annotated[str | None, typer.Option(help="Only those with this in their key.")]
Engine = Annotated[str | None, typer.Option(help="Only those on this engine.")]
Kind = Annotated[MemoryKind | None, typer.Option(help="Only this kind of memory.")]
InTier = Annotated[Tier | None, typer.Option(help="Only those of which something lies in this tier.")]
Descending = Annotated[bool, typer.Option("--descending", help="The largest first.")]


@reading
async def status(daemon: Daemon) -> Shown:
    """Whether the daemon can do its work, its engines, its sources, and what its prefetches came to."""
    health, ready, engines, sources, report = await asyncio.gather(
        daemon.ask("/health", Health),
        daemon.ask("/ready", Ready),
        daemon.ask("/v1/engines", Engines),
        daemon.ask("/v1/sources", Sources),
        daemon.ask("/v1/report", Report),
    )
    parts = {"health": health, "ready": ready, "engines": engines, "sources": sources, "report": report}
    plain = {name: part.model_dump(mode="json") for name, part in parts.items()}
    view = engine_views.status(daemon.url, health, ready, engines, sources, report)
    return Shown(plain, view, 0 if ready.ready else NO)


@reading
async def agents(
    daemon: Daemon,
    text: Text = None,
    simulation: Annotated[str | None, typer.Option(help="Only those of this simulation.")] = None,
    engine: Engine = None,
    tier: InTier = None,
    pinned: Annotated[bool | None, typer.Option(help="Only those that are pinned, or are not.")] = None,
    in_flight: Annotated[
        bool | None, typer.Option(help="Only those with requests under way, or without.")
    ] = None,
    sort: Annotated[AgentOrder, typer.Option(help="By what, the smallest first.")] = AgentOrder.DISTANCE,
    descending: Descending = False,
    limit: Limit = 20,
    offset: Offset = 0,
) -> Shown:
    """The agents, the next to call first."""
    page = await daemon.ask(
        "/v1/agents",
        AgentsPage,
        text=text,
        simulation=simulation,
        engine=engine,
        tier=tier,
        pinned=pinned,
        in_flight=in_flight,
        sort=sort,
        descending=descending,
        limit=limit,
        offset=offset,
    )
    return Shown(page.model_dump(mode="json"), agent_views.agents(page))


@reading
async def engines(daemon: Daemon) -> Shown:
    """The engines: what they hold, what was lost there, the budgets, and what would let us do more."""
    known = await daemon.ask("/v1/engines", Engines)
    return Shown(known.model_dump(mode="json"), engine_views.engines(known))


@reading
async def items(
    daemon: Daemon,
    text: Text = None,
    kind: Kind = None,
    engine: Engine = None,
    tier: InTier = None,
    residency: Annotated[Residency | None, typer.Option(help="Only those of which this is known.")] = None,
    sort: Annotated[ItemOrder, typer.Option(help="By what, the smallest first.")] = ItemOrder.DISTANCE,
    descending: Descending = False,
    limit: Limit = 20,
    offset: Offset = 0,
) -> Shown:
    """Memory items on each engine: agents' prefixes and LoRAs, the next to be used first."""
    page = await daemon.ask(
        "/v1/items",
        ItemsPage,
        text=text,
        kind=kind,
        engine=engine,
        tier=tier,
        residency=residency,
        sort=sort,
        descending=descending,
        limit=limit,
        offset=offset,
    )
    return Shown(page.model_dump(mode="json"), agent_views.items(page))


@reading
async def explain(daemon: Daemon, agent: AgentArgument) -> Shown:
    """Why one agent is as far as it is, where its memory is, and what was done about it."""
    detail = await daemon.ask(f"/v1/agents/{in_path(agent_key(agent))}", AgentDetail)
    return Shown(detail.model_dump(mode="json"), agent_views.explanation(detail))


@reading
async def plan(daemon: Daemon, limit: Limit = 20) -> Shown:
    """What is to be done on each engine, and what is being done, with the reason of each step."""
    state = await daemon.ask("/v1/plan", PlanState, limit=limit)
    return Shown(state.model_dump(mode="json"), engine_views.plan(state))


@reading
async def decisions(
    daemon: Daemon,
    key: Annotated[str | None, typer.Option(help="Only those about this agent or LoRA.")] = None,
    engine: Engine = None,
    action: Annotated[Action | None, typer.Option(help="Only those that did this.")] = None,
    kind: Kind = None,
    result: Annotated[str | None, typer.Option(help="Only those whose result starts so.")] = None,
    limit: Limit = 20,
    offset: Offset = 0,
) -> Shown:
    """What was done, the latest first, with the reason of each step and its result."""
    page = await daemon.ask(
        "/v1/decisions",
        DecisionsPage,
        key=key,
        engine=engine,
        action=action,
        kind=kind,
        result=result,
        limit=limit,
        offset=offset,
    )
    return Shown(page.model_dump(mode="json"), agent_views.decisions(page))


@reading
async def estimators(daemon: Daemon) -> Shown:
    """How good each estimator was at foretelling the calls, and whether it is admitted."""
    known = await daemon.ask("/v1/estimators", Estimators)
    return Shown(known.model_dump(mode="json"), engine_views.estimators(known))


@reading
async def pins(daemon: Daemon, limit: Limit = 20, offset: Offset = 0) -> Shown:
    """The pins that hold, and until when."""
    page = await daemon.ask("/v1/pins", PinsPage, limit=limit, offset=offset)
    return Shown(page.model_dump(mode="json"), steering_views.pins(page))


@reading
async def operations(
    daemon: Daemon,
    identities: Annotated[
        list[str] | None, typer.Argument(metavar="OPERATION", help="Only these, by their ids.")
    ] = None,
    limit: Limit = 20,
    offset: Offset = 0,
) -> Shown:
    """What operators have asked for that takes its time, the latest first, and how far it is."""
    if identities:
        found = [await daemon.ask(f"/v1/operations/{in_path(one)}", OperationState) for one in identities]
    else:
        page = await daemon.ask("/v1/operations", OperationsPage, limit=limit, offset=offset)
        found = page.operations
    plain = {"operations": [one.model_dump(mode="json") for one in found]}
    return Shown(plain, steering_views.operations(found))


@reading
async def show_config(daemon: Daemon) -> Shown:
    """The settings that hold; secrets are starred out."""
    state = await daemon.ask("/v1/config", ConfigState)
    return Shown(state.model_dump(mode="json"), steering_views.config(state))
