"""Lists of very many: pages that hold whatever changes meanwhile, and a loop that goes on while they are made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalesim_daemon.api_queries import AgentOrder, AgentsQuery, ItemOrder, ItemsQuery
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.paging import CHUNK, First
from scalesim_daemon.report_agents import agents_page
from scalesim_daemon.report_items import items_page
from tests.daemon.api_calls import get
from tests.daemon.still import add_engine, open_stream, say, tokens


def people(sidecar: Sidecar, agents: range) -> None:
    """Agents with a prefix each."""
    view = next(iter(sidecar.drivers.values())).view
    for number in agents:
        say(sidecar, {"type": "memory.bound", "agent": f"a{number:05d}", "token_ids": tokens(number, 2)})
        memory = sidecar.population.agents[f"sim/a{number:05d}"].memory
        assert memory is not None
        view.bound(f"sim/a{number:05d}", memory)


ranked = st.lists(st.tuples(st.integers(-5, 5), st.text(max_size=1)), max_size=12)


@settings(max_examples=30, deadline=None)
@given(st.lists(ranked, max_size=4), st.integers(0, 40), st.booleans())
def test_the_first_of_all_are_kept(lots: list[list[tuple[int, str]]], count: int, descending: bool) -> None:
    many = 30 * lots
    first: First[tuple[int, str]] = First(count, descending=descending)
    for lot in many:
        first.add(lot)
    everything = sorted((one for lot in many for one in lot), reverse=descending)
    assert first.ordered() == everything[:count]


def test_no_more_are_kept_than_a_page_needs() -> None:
    first: First[tuple[int]] = First(3)
    for number in range(0, 10 * CHUNK, 10):
        first.add((one,) for one in range(number, number + 10))
        assert len(first._kept) <= 2 * 3 + CHUNK + 10
    assert first.ordered() == [(0,), (1,), (2,)]


@pytest.mark.parametrize(("path", "field", "name"), [("agents", "agents", "key"), ("items", "items", "item")])
def test_pages_by_key_hold_while_agents_come_and_go(
    sidecar: Sidecar, path: str, field: str, name: str
) -> None:
    add_engine(sidecar)
    open_stream(sidecar)
    people(sidecar, range(1, 40, 2))
    stay = {f"sim/a{number:05d}" for number in range(5, 40, 2)}
    told: list[str] = []
    while rows := get(
        sidecar, f"/v1/{path}", sort="key", limit=4, **({"after": told[-1]} if told else {})
    ).json()[field]:
        told += [row[name] for row in rows]
        # One behind us goes, one comes: by offset the next page would leave one out, or tell one twice.
        gone = len(told) // 4
        if gone <= 2:
            say(sidecar, {"type": "agent.released", "agent": f"a{2 * gone - 1:05d}"})
            people(sidecar, range(0, 1))
    assert told == sorted(set(told))
    assert stay <= set(told)


@pytest.mark.parametrize(
    "page",
    [
        lambda sidecar: agents_page(sidecar, AgentsQuery()),
        lambda sidecar: agents_page(sidecar, AgentsQuery(sort=AgentOrder.RESIDENT, offset=4 * CHUNK)),
        lambda sidecar: items_page(sidecar, ItemsQuery()),
        lambda sidecar: items_page(sidecar, ItemsQuery(sort=ItemOrder.KEY, descending=True)),
    ],
)
def test_others_have_their_turn_while_a_page_is_made(
    sidecar: Sidecar, page: Callable[[Sidecar], Coroutine[Any, Any, Any]]
) -> None:
    """Meanwhile agents come and go: the page knows those who were there."""
    add_engine(sidecar)
    open_stream(sidecar)
    people(sidecar, range(8 * CHUNK))

    async def scene() -> tuple[int, int]:
        making, turns = asyncio.create_task(page(sidecar)), 0
        while not making.done():
            say(sidecar, {"type": "agent.registered", "agent": f"new{turns}"})
            say(sidecar, {"type": "agent.released", "agent": f"a{turns:05d}"})
            turns += 1
            await asyncio.sleep(0)
        return turns, (await making).total

    turns, total = asyncio.run(scene())
    assert turns >= 8
    assert 8 * CHUNK - turns <= total <= 8 * CHUNK
