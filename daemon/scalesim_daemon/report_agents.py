"""Agents as people see them: how far each is and why, and where its memory is. Reads, and changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from time import time

from scalesim_adapters.base import MemoryKind, Tier
from scalesim_daemon.api_models import (
    AgentDetail,
    AgentsPage,
    AgentSummary,
    ClockState,
    Decision,
    Place,
    Placement,
    PrefixBlocks,
    Residency,
)
from scalesim_daemon.api_queries import AgentOrder, AgentsQuery
from scalesim_daemon.board import Due
from scalesim_daemon.driver import Driver
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.paging import First, in_turns
from scalesim_daemon.plan import Action
from scalesim_daemon.population import Memory
from scalesim_daemon.records import Record
from scalesim_daemon.setting_values import redacted

SHOWN_DECISIONS = 20
# Of the library's LoRAs by name: link, bytes, and whether they are staged.
Links = Mapping[str, tuple[Path, int, bool]]


class UnknownAgent(LookupError):
    """No simulation has spoken of the agent, and no engine has served it."""


async def agents_page(sidecar: Sidecar, query: AgentsQuery) -> AgentsPage:
    """Return a page of the agents that the query means. Others get their turns while they are looked at."""
    meant, rank = _meant(sidecar, query), _rank(sidecar, query)
    by_key = query.sort is AgentOrder.KEY
    first: First[tuple[float, str]] = First(
        query.offset + query.limit, descending=by_key and query.descending
    )
    total = 0
    async for batch in in_turns(known_agents(sidecar)):
        found = [(rank(key), key) for key in batch if meant(key)]
        total += len(found)
        first.add(found)
    agents = [_summary(sidecar, key) for _, key in first.ordered()[query.offset :]]
    return AgentsPage(total=total, offset=query.offset, limit=query.limit, agents=agents)


def known_agents(sidecar: Sidecar) -> Iterator[str]:
    """Return all agents that are known now, whatever changes meanwhile."""
    agents, due = sidecar.population.agents.copy(), list(sidecar.population.board.agents())
    return chain(agents, (key for key in due if key not in agents))


def _meant(sidecar: Sidecar, query: AgentsQuery) -> Callable[[str], bool]:
    agents, pins = sidecar.population.agents, sidecar.pinned() if query.pinned is not None else frozenset()
    links: Links = sidecar.library.inventory()[0] if query.tier is not None else {}

    def meant(key: str) -> bool:
        agent = agents.get(key)
        memory = agent.memory if agent is not None else None
        return (
            (query.simulation is None or key.startswith(f"{query.simulation}/"))
            and (query.after is None or key > query.after)
            and (query.text or "") in key
            and (query.pinned is None or query.pinned is (key in pins))
            and (query.in_flight is None or query.in_flight is (agent is not None and agent.in_flight > 0))
            and (query.engine is None or query.engine in _prefixes(sidecar, key))
            and (
                query.tier is None
                or any(query.tier in place.tiers for place in _places(sidecar, key, memory, links))
            )
        )

    return meant


def _rank(sidecar: Sidecar, query: AgentsQuery) -> Callable[[str], float]:
    """Return by what agents are sorted, equals by key: the smallest comes first."""
    board, sign = sidecar.population.board, -1 if query.descending else 1

    def confidence(key: str) -> float:
        due = board.get(key)
        return 0.0 if due is None else sign * due.confidence

    def resident(key: str) -> float:
        return sign * sum(prefix.resident_blocks for prefix in _prefixes(sidecar, key).values())

    ranks: dict[AgentOrder, Callable[[str], float]] = {
        AgentOrder.DISTANCE: lambda key: sign * board.seconds(key),
        AgentOrder.KEY: lambda _: 0.0,
        AgentOrder.CONFIDENCE: confidence,
        AgentOrder.RESIDENT: resident,
    }
    return ranks[query.sort]


def agent_detail(sidecar: Sidecar, key: str) -> AgentDetail:
    """Return all that is known of one agent. Raises `UnknownAgent`."""
    population = sidecar.population
    check_known(sidecar, key)
    agent, due = population.agents.get(key), population.board.get(key)
    summary = _summary(sidecar, key)
    memory = agent.memory if agent is not None else None
    pinned = sidecar.pins.get(key, 0.0)
    return AgentDetail(
        **dict(summary),
        due=None if due is None else due.at,
        clock=None if due is None else ClockState.model_validate(due.clock),
        why=_why(due) + _lora_problem(sidecar, memory),
        invocations=0 if agent is None else agent.invocations,
        pinned_until=pinned if pinned > time() else None,
        places=_places(sidecar, key, memory, sidecar.library.inventory()[0]),
        decisions=_decisions(sidecar, key, memory),
    )


def placement(sidecar: Sidecar, key: str) -> Placement:
    """Return where an agent lives. Raises `UnknownAgent`."""
    check_known(sidecar, key)
    engine = sidecar.home_of(key)
    urls = {one.name: redacted(one.url) for one in sidecar.settings.engines}
    url = None if engine is None else urls.get(engine)
    if url is None and engine is not None and sidecar.shared is not None:
        url = sidecar.shared.url_of(engine)
    return Placement(agent=key, engine=engine, url=url)


def check_known(sidecar: Sidecar, key: str) -> None:
    """Raise `UnknownAgent` where nothing is known of the agent."""
    population = sidecar.population
    if key not in population.agents and population.board.get(key) is None and not _prefixes(sidecar, key):
        raise UnknownAgent(
            f"agent {key!r} is not known: no open stream speaks of it, and no engine was seen serving it "
            "(requests name their agent as session_id)"
        )


def _summary(sidecar: Sidecar, key: str) -> AgentSummary:
    agent, due = sidecar.population.agents.get(key), sidecar.population.board.get(key)
    engines = _prefixes(sidecar, key)
    items = agent.memory.items if agent is not None and agent.memory is not None else []
    if engines and MemoryKind.PREFIX_KV.value not in items:
        items.append(MemoryKind.PREFIX_KV.value)
    return AgentSummary(
        key=key,
        distance=None if due is None else due.distance,
        unit=None if due is None else due.clock.kind,
        seconds=None if due is None else due.seconds,
        basis=None if due is None else due.basis,
        confidence=None if due is None else due.confidence,
        in_flight=0 if agent is None else agent.in_flight,
        items=items,
        engine=sidecar.home_of(key),
        engines=engines,
    )


def _prefixes(sidecar: Sidecar, key: str) -> dict[str, PrefixBlocks]:
    found: dict[str, PrefixBlocks] = {}
    for name, driver in sidecar.drivers.items():
        tree = driver.view.tree
        if tree is not None and (blocks := tree.prefix_blocks(key)):
            found[name] = PrefixBlocks(blocks=blocks, resident_blocks=tree.resident_blocks(key))
    return found


def _why(due: Due | None) -> str:
    if due is None:
        return "no invocation is foreseen: no estimator expects one"
    clock = f"the clock shows {due.clock.now:g} ({due.clock.kind})"
    if math.isinf(due.distance):
        return f"{due.basis}: was due at {due.at:g} and did not call, {clock}; it counts as far"
    return f"{due.basis}: due at {due.at:g}, {clock}"


def _lora_problem(sidecar: Sidecar, memory: Memory | None) -> str:
    why = (
        None
        if memory is None or memory.lora_name is None
        else sidecar.linking.not_taken.get(memory.lora_name)
    )
    return "" if why is None else f"; its LoRA is not taken: {why}"


def _places(sidecar: Sidecar, key: str, memory: Memory | None, links: Links) -> list[Place]:
    places: list[Place] = []
    for name, driver in sidecar.drivers.items():
        prefix = prefix_place(name, driver, key)
        if prefix is not None:
            places.append(prefix)
        if memory is not None and memory.lora_name is not None:
            places.append(lora_place(name, driver, memory.lora_name, links))
    return places


def prefix_place(engine: str, driver: Driver, key: str) -> Place | None:
    """Return where an agent's prefix is on an engine, None where it isn't known there."""
    tree = driver.view.tree
    blocks = 0 if tree is None else tree.prefix_blocks(key)
    if tree is None or not blocks:
        return None
    resident = tree.resident_blocks(key)
    return Place(
        engine=engine,
        item=key,
        kind=MemoryKind.PREFIX_KV,
        residency=_residency(driver, MemoryKind.PREFIX_KV, key, resident > 0, driver.view.known),
        tiers=[Tier.DEVICE] if resident else [],
        blocks=blocks,
        resident_blocks=resident,
    )


def lora_place(engine: str, driver: Driver, lora: str, links: Links) -> Place:
    """Return where a LoRA is, on an engine and outside it. Where the engine doesn't tell, a registered one may be
    anywhere: its tiers are then what the shadow of the engine's bookkeeping says."""
    places = driver.view.loras
    registered, on_device, on_host = (
        lora in held for held in (places.registered, places.device, places.host)
    )
    tiers = [Tier.DEVICE] if on_device else []
    if on_host or (lora in links and links[lora][2]):
        tiers.append(Tier.HOST)
    if lora in links:
        tiers.append(Tier.STORAGE)
    return Place(
        engine=engine,
        item=lora,
        kind=MemoryKind.LORA,
        residency=_residency(
            driver,
            MemoryKind.LORA,
            lora,
            there=registered and (on_device or on_host),
            known=places.exact or not registered,
        ),
        tiers=tiers,
        registered=registered,
    )


def _residency(driver: Driver, kind: MemoryKind, key: str, there: bool, known: bool) -> Residency:
    moved = [step for step in driver.in_flight if step.kind is kind and step.key == key]
    if any(step.action not in (Action.DEMOTE, Action.EVICT) for step in moved):
        return Residency.LOADING
    if not (known and driver.view.reachable):
        return Residency.UNKNOWN
    return Residency.RESIDENT if there else Residency.ABSENT


def _decisions(sidecar: Sidecar, key: str, memory: Memory | None) -> list[Decision]:
    """The latest first: what was done with the agent's memory, and what was done at its expense."""
    names = {key} if memory is None or memory.lora_name is None else {key, memory.lora_name}

    def concerns(record: Record) -> bool:
        return record.step.key in names or not names.isdisjoint(record.step.victims)

    latest = islice(filter(concerns, reversed(sidecar.decisions)), SHOWN_DECISIONS)
    return [Decision.model_validate(record) for record in latest]
