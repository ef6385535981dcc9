"""Agents and memory items: how far they are, where they are, and what was done with them."""

from __future__ import annotations

from rich.console import Group, RenderableType

from scalesim_daemon.api_models import AgentDetail, AgentsPage, AgentSummary, Decision, Place
from scalesim_daemon.api_queries import DecisionsPage, Item, ItemsPage
from scalesim_daemon.ctl.views.texts import NONE, line, page, seconds, step_words, table, wall_time

DECISION_COLUMNS = ("at", "engine", "step", "of", "why", "result")


def agents(found: AgentsPage) -> RenderableType:
    """Agents, in the order that was asked for."""
    columns = ("agent", "distance", "seconds", "why", "memory", "on device")
    return Group(
        table(columns, [_agent_row(agent) for agent in found.agents]),
        page(len(found.agents), found.offset, found.total, "agents"),
    )


def explanation(agent: AgentDetail) -> RenderableType:
    """One agent, and why."""
    head = [
        line(f"{agent.key}: {_distance(agent)}", "bold"),
        line(f"  {agent.why}"),
        line(f"  {agent.in_flight} in flight, {agent.invocations} invocations so far"),
    ]
    if agent.confidence is not None:
        head.append(line(f"  confidence {agent.confidence:.2f}"))
    if agent.pinned_until is not None:
        head.append(line(f"  pinned until {wall_time(agent.pinned_until)}"))
    places = table(
        ("engine", "memory", "item", "state", "where"), [_place_row(place) for place in agent.places]
    )
    done = table(DECISION_COLUMNS, [_decision_row(decision) for decision in agent.decisions])
    return Group(*head, places, done)


def items(found: ItemsPage) -> RenderableType:
    """Memory items, each on each engine that could have it."""
    columns = ("engine", "memory", "item", "state", "where", "agents", "seconds")
    return Group(
        table(columns, [_item_row(item) for item in found.items]),
        page(len(found.items), found.offset, found.total, "items"),
    )


def decisions(found: DecisionsPage) -> RenderableType:
    """What was done, the latest first."""
    return Group(
        table(DECISION_COLUMNS, [_decision_row(decision) for decision in found.decisions]),
        page(len(found.decisions), found.offset, found.total, "decisions"),
    )


def _agent_row(agent: AgentSummary) -> tuple[str, ...]:
    resident = ", ".join(
        f"{engine} {found.resident_blocks}/{found.blocks}" for engine, found in agent.engines.items()
    )
    return (
        agent.key,
        "in flight" if agent.in_flight else _distance(agent),
        seconds(agent.seconds),
        agent.basis or NONE,
        ", ".join(agent.items) or NONE,
        resident or NONE,
    )


def _item_row(item: Item) -> tuple[str, ...]:
    return (*_place_row(item), str(item.agents), seconds(item.seconds))


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
        wall_time(decision.at),
        decision.engine,
        step_words(step),
        step.key,
        step.reason,
        f"{decision.result} ({decision.seconds:.2f} s, {decision.computed} tokens)",
    )


def _distance(agent: AgentSummary) -> str:
    return "far" if agent.distance is None else f"{agent.distance:g} {agent.unit}"
