"""The order in which our plug-in gives up nodes of SGLang's radix tree, and what it may import there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field

import pytest

from scalesim_adapters.dues import DueListener, DueTable
from scalesim_adapters.sglang.plugin.eviction import Eviction
from scalesim_adapters.sglang.plugin.ranking import Ranking


@dataclass(eq=False)
class Node:
    """A node of the tree, with the sessions that SGLang notes there."""

    last_access_time: float
    sessions: set[str] = field(default_factory=set)
    children: dict[object, object] = field(default_factory=dict)


DUES = {"near": 1.0, "far": 9.0, "also far": 9.0, "past": -3.0}


@pytest.fixture
def ranking() -> Ranking[Node]:
    table = DueTable()
    dues = {agent: ("step", due) for agent, due in DUES.items()}
    assert table.apply({"type": "snapshot", "clocks": {"step": (0.0, 1.0)}, "dues": dues}, 0.0)
    return Ranking(table, lambda node: node.sessions)


def ends(ranking: Ranking[Node], node: Node, *sessions: str) -> Node:
    """Let the newest prompts of sessions end at a node."""
    for session in sessions:
        node.sessions.add(session)
        ranking.used(session, node)
    return node


def order(ranking: Ranking[Node], *nodes: Node) -> list[Node]:
    return sorted(nodes, key=ranking.key)


def test_farthest_first_and_among_equals_the_least_recent(ranking: Ranking[Node]) -> None:
    near = ends(ranking, Node(1), "near")
    far, later = ends(ranking, Node(2), "far"), ends(ranking, Node(3), "also far")
    unknown, nobodys = ends(ranking, Node(4), "never heard of"), Node(5)
    past = ends(ranking, Node(0), "past")
    assert order(ranking, past, near, far, later, unknown, nobodys) == [
        unknown,
        nobodys,
        far,
        later,
        near,
        past,
    ]


def test_a_shared_node_counts_for_the_nearest_of_its_users(ranking: Ranking[Node]) -> None:
    shared, far = ends(ranking, Node(1), "far", "near"), ends(ranking, Node(2), "also far")
    assert order(ranking, shared, far) == [far, shared]
    ranking.closed("near")
    assert order(ranking, shared, far) == [shared, far]


def test_a_branch_that_only_an_older_prompt_took_is_nobodys(ranking: Ranking[Node]) -> None:
    old = ends(ranking, Node(5), "near")
    new = ends(ranking, Node(1), "near")
    far = ends(ranking, Node(0), "far")
    assert order(ranking, old, new, far) == [old, far, new]


def test_what_is_on_the_host_below_a_leaf_counts_for_the_leaf(ranking: Ranking[Node]) -> None:
    below = ends(ranking, Node(1), "near")
    leaf, far = Node(2, children={"a": Node(3, children={"b": below})}), ends(ranking, Node(9), "far")
    assert order(ranking, leaf, far) == [far, leaf]


def test_where_a_deleted_node_ended_a_prompt_the_node_above_does(ranking: Ranking[Node]) -> None:
    node, above = ends(ranking, Node(1), "near", "far"), Node(2)
    ending = ranking.ending_at(node)
    assert sorted(ending) == ["far", "near"]
    above.sessions |= node.sessions
    ranking.shortened(ending, above)
    assert sorted(ranking.ending_at(above)) == ["far", "near"]
    ranking.shortened(ending, None)
    assert ranking.ending_at(above) == []


def test_the_plugin_imports_what_an_engine_has_and_no_more() -> None:
    """The daemon's dependencies aren't there."""
    code = (
        "import sys, scalesim_adapters.sglang.plugin as plugin; plugin.register();"
        "print([m for m in sys.modules if m.partition('.')[0] in "
        "('httpx', 'pydantic', 'redis', 'structlog', 'scalesim_client', 'scalesim_daemon', 'sglang')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={})
    assert done.stdout.strip() == "[]"


def test_an_endpoint_that_cannot_be_heard_leaves_the_engine_as_it_is() -> None:
    class Cache:
        enable_session_radix_cache = True

    class Component:
        session_ref_eviction_strategy = staticmethod(lambda node: "its own")

    component = Component()
    Eviction("nonsense", lambda: DueListener("nonsense")).made(None, component, Cache())
    assert component.session_ref_eviction_strategy(None) == "its own"
