"""Memory items, wherever they are, and what was done with them. Reads, and changes nothing."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import NamedTuple

from scalesim_adapters.base import MemoryKind
from scalesim_daemon.api_models import Decision, Place
from scalesim_daemon.api_queries import DecisionsPage, DecisionsQuery, Item, ItemOrder, ItemsPage, ItemsQuery
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.paging import First, in_turns
from scalesim_daemon.records import Record
from scalesim_daemon.report_agents import Links, known_agents, lora_place, prefix_place


class _Listed(NamedTuple):
    """An item before it is looked at closely: of most that are known, one page is asked for."""

    key: str
    engine: str
    kind: MemoryKind
    agents: int
    seconds: float


async def items_page(sidecar: Sidecar, query: ItemsQuery) -> ItemsPage:
    """Return a page of the items that the query means. Others get their turns while they are looked at."""
    links, _ = sidecar.library.inventory()
    by_key = query.sort is ItemOrder.KEY
    sign = -1 if query.descending else 1
    first: First[tuple[float, _Listed]] = First(
        query.offset + query.limit, descending=by_key and query.descending
    )
    total = 0
    async for batch in _listed(sidecar):
        found = [
            (0.0 if by_key else sign * one.seconds, one)
            for one in batch
            if _meant(one, query) and _is_where(sidecar, one, links, query)
        ]
        total += len(found)
        first.add(found)
    return ItemsPage(
        total=total,
        offset=query.offset,
        limit=query.limit,
        items=[
            Item(
                **dict(_place(sidecar, one, links)),
                agents=one.agents,
                seconds=one.seconds if math.isfinite(one.seconds) else None,
            )
            for _, one in first.ordered()[query.offset :]
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


async def _listed(sidecar: Sidecar) -> AsyncIterator[Sequence[_Listed]]:
    """Yield all items, each on each engine, some hundred at a time."""
    async for keys in in_turns(known_agents(sidecar)):
        yield [one for key in keys for one in _prefixes(sidecar, key)]
    async for loras in in_turns(list(sidecar.population.memories.loras)):
        yield [one for name in loras for one in _lora(sidecar, name)]


def _prefixes(sidecar: Sidecar, key: str) -> Iterator[_Listed]:
    for engine, driver in sidecar.drivers.items():
        tree = driver.view.tree
        if tree is not None and tree.prefix_blocks(key):
            yield _Listed(key, engine, MemoryKind.PREFIX_KV, 1, sidecar.population.board.seconds(key))


def _lora(sidecar: Sidecar, name: str) -> Iterator[_Listed]:
    agents = sidecar.population.memories.loras.get(name)
    if agents:
        nearest = min(map(sidecar.population.board.seconds, agents))
        for engine in sidecar.drivers:
            yield _Listed(name, engine, MemoryKind.LORA, len(agents), nearest)


def _meant(one: _Listed, query: ItemsQuery) -> bool:
    return (
        query.kind in (None, one.kind)
        and query.engine in (None, one.engine)
        and (query.text or "") in one.key
        and (query.after is None or one.key > query.after)
    )


def _place(sidecar: Sidecar, one: _Listed, links: Links) -> Place:
    driver = sidecar.drivers[one.engine]
    place = prefix_place(one.engine, driver, one.key) if one.kind is MemoryKind.PREFIX_KV else None
    return place or lora_place(one.engine, driver, one.key, links)


def _is_where(sidecar: Sidecar, one: _Listed, links: Links, query: ItemsQuery) -> bool:
    if query.tier is None and query.residency is None:
        return True
    place = _place(sidecar, one, links)
    return query.residency in (None, place.residency) and (query.tier is None or query.tier in place.tiers)
