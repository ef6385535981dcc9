"""Memory items, wherever they are, and what was done with them. Reads, and changes nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.api_models import Decision, Place
from scalesim_daemon.api_queries import DecisionsPage, DecisionsQuery, Item, ItemOrder, ItemsPage, ItemsQuery
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.records import Record
from scalesim_daemon.report_agents import Links, lora_place, prefix_place


@dataclass(frozen=True, slots=True)
class _Listed:
    """An item before it is looked at closely: of most that are known, one page is asked for."""

    kind: MemoryKind
    key: str
    engine: str
    agents: int
    seconds: float


def items_page(sidecar: Sidecar, query: ItemsQuery) -> ItemsPage:
    """Return a page of the items that the query means."""
    links, _ = sidecar.library.inventory()
    listed = [one for one in _listed(sidecar) if _meant(one, query)]
    listed.sort(key=lambda one: (one.key, one.engine))
    by_distance = query.sort is ItemOrder.DISTANCE
    listed.sort(key=lambda one: one.seconds if by_distance else one.key, reverse=query.descending)
    if query.tier is not None or query.residency is not None:
        listed = [one for one in listed if _is_where(_place(sidecar, one, links), query)]
    shown = listed[query.offset : query.offset + query.limit]
    return ItemsPage(
        total=len(listed),
        offset=query.offset,
        limit=query.limit,
        items=[
            Item(
                **dict(_place(sidecar, one, links)),
                agents=one.agents,
                seconds=one.seconds if math.isfinite(one.seconds) else None,
            )
            for one in shown
        ],
    )


def decisions_page(sidecar: Sidecar, query: DecisionsQuery) -> DecisionsPage:
    """Return a page of what was done, the latest first."""

    def meant(record: Record) -> bool:
        step = record.step
        return (
            query.engine in (None, record.engine)
            and query.action in (None, step.action)
            and query.kind in (None, step.kind)
            and (query.key is None or query.key == step.key or query.key in step.victims)
            and record.result.startswith(query.result or "")
        )

    found = [record for record in reversed(sidecar.decisions) if meant(record)]
    shown = found[query.offset : query.offset + query.limit]
    return DecisionsPage(
        total=len(found),
        offset=query.offset,
        limit=query.limit,
        decisions=[Decision.model_validate(record) for record in shown],
    )


def _listed(sidecar: Sidecar) -> Iterator[_Listed]:
    seconds = sidecar.population.board.seconds
    loras: dict[str, list[str]] = {}
    for agent in sidecar.population.agents.values():
        if agent.memory is not None and agent.memory.lora_name is not None:
            loras.setdefault(agent.memory.lora_name, []).append(agent.key)
    keys = sidecar.population.agents.keys() | sidecar.population.board.agents()
    nearest = {name: min(map(seconds, agents)) for name, agents in loras.items()}
    for engine, driver in sidecar.drivers.items():
        tree = driver.view.tree
        for key in keys if tree is not None else ():
            if tree is not None and tree.prefix_blocks(key):
                yield _Listed(MemoryKind.PREFIX_KV, key, engine, 1, seconds(key))
        for name, agents in loras.items():
            yield _Listed(MemoryKind.LORA, name, engine, len(agents), nearest[name])


def _meant(one: _Listed, query: ItemsQuery) -> bool:
    return (
        query.kind in (None, one.kind)
        and query.engine in (None, one.engine)
        and (query.text or "") in one.key
    )


def _place(sidecar: Sidecar, one: _Listed, links: Links) -> Place:
    driver = sidecar.drivers[one.engine]
    place = prefix_place(one.engine, driver, one.key) if one.kind is MemoryKind.PREFIX_KV else None
    return place or lora_place(one.engine, driver, one.key, links)


def _is_where(place: Place, query: ItemsQuery) -> bool:
    return query.residency in (None, place.residency) and (query.tier is None or query.tier in place.tiers)
