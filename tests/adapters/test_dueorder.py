"""The order of agents by due against the plainest way to say it."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scalesim_adapters.dueorder import DueOrder
from scalesim_adapters.dues import DueTable
from tests.adapters.dues_scene import payload

agents = st.sampled_from([f"s/a{number}" for number in range(8)])
clocks = st.sampled_from(["one", "two", "unheard"])
steps = st.one_of(
    st.tuples(st.just("put"), agents, st.integers(0, 20), st.integers(0, 20)),
    st.tuples(st.just("discard"), agents),
    st.tuples(st.just("due"), agents, st.none() | st.tuples(clocks, st.integers(0, 9).map(float))),
    st.tuples(st.just("tick"), st.sampled_from(["one", "two"]), st.integers(0, 9).map(float)),
)


@given(st.lists(steps, max_size=120))
def test_the_farthest_comes_first_and_of_equals_who_was_served_last_or_the_lowest_rank(
    said: list[tuple[Any, ...]],
) -> None:
    table = DueTable()
    table.apply(payload("snapshot", {"one": (0.0, 1.0), "two": (0.0, 2.0)}), 0.0)
    order = DueOrder(table)
    ranks: dict[str, int] = {}
    served: dict[str, int] = {}

    def place(agent: str) -> tuple[float, int]:
        known = table.due(agent) is not None
        return -table.nearness(agent), -served[agent] if known else ranks[agent]

    for what, who, *value in said:
        match what:
            case "put":
                # These are stamps: no two agents have the same.
                ranks[who], served[who] = (number * 8 + int(who[-1]) for number in value)
                order.put(who, ranks[who], served[who])
            case "discard":
                ranks.pop(who, None)
                order.discard(who)
            case "due":
                table.apply(payload("delta", {}, {who: value[0]}), 0.0)
            case "tick":
                table.apply(payload("delta", {who: (value[0], 1.0 if who == "one" else 2.0)}), 0.0)
        order.refresh()
        expected = min(ranks, key=place, default=None)
        farthest = order.farthest()
        if any((due := table.due(agent)) is not None and due[0] == "unheard" for agent in ranks):
            # How far these are isn't known: they keep the order of their dues.
            assert farthest is not None
            assert expected is not None
            assert table.nearness(farthest) == table.nearness(expected) == math.inf
        else:
            assert farthest == expected
        assert len(order) == len(ranks)


def test_it_does_not_grow_with_the_changes_it_has_seen() -> None:
    table = DueTable()
    order = DueOrder(table)
    for turn in range(5000):
        table.apply(
            payload("snapshot", {"c": (0.0, 1.0)}, {f"s/{n}": ("c", turn + n) for n in range(10)}), 0.0
        )
        for number in range(10):
            order.put(f"s/{number}", turn, turn)
        order.refresh()
    assert sum(map(len, order._heaps.values())) < 200
    assert order.farthest() == "s/9"
    for number in range(10):
        order.discard(f"s/{number}")
    assert order.farthest() is None
    assert not order._heaps


def test_overdue_agents_are_nearer_than_those_due_now() -> None:
    table = DueTable()
    dues = {"s/now": ("c", 5.0), "s/over": ("c", 4.0), "s/pinned": ("c", -math.inf)}
    table.apply(payload("snapshot", {"c": (5.0, 1.0)}, dues), 0.0)
    order = DueOrder(table)
    for rank, agent in enumerate(dues):
        order.put(agent, rank, rank)
    left = []
    while (agent := order.farthest()) is not None:
        left.append(agent)
        order.discard(agent)
    assert left == ["s/now", "s/over", "s/pinned"]
