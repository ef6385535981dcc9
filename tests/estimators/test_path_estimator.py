from __future__ import annotations

import math
from unittest.mock import patch

import networkx as nx
from estimator_events import AGENTS, Feed, activations, chains, feeds, invocations, paths, same
from hypothesis import given
from hypothesis import strategies as st

from scalesim_client.events import (
    AgentActivated,
    AgentIdled,
    AgentReleased,
    Event,
    InvocationStarted,
    PathDeclared,
)
from scalesim_estimators import Estimate, PathEstimator
from scalesim_estimators import path as path_module
from scalesim_estimators.path import MOST_PATHS, STEPS_PER_EVENT

CHAIN = PathDeclared(nodes=["a", "b", "c", "d"], hop=2.0)


def due(path: PathEstimator, agent: str, earliest: float = -math.inf) -> float | None:
    estimate = path.estimate(agent, earliest)
    return None if estimate is None else estimate.due


def test_dues_grow_by_a_hop_along_a_chain() -> None:
    path = PathEstimator()
    path.observe(CHAIN, 0.0)
    assert path.estimate("b") is None
    assert list(path.observe(AgentActivated(agent="a"), 10.0)) == ["a", "b", "c", "d"]
    assert [due(path, agent) for agent in "abcd"] == [10.0, 12.0, 14.0, 16.0]
    assert path.estimate("b") == Estimate(12.0, 0.8, "path default")


def test_an_early_and_a_late_activation_shift_what_follows() -> None:
    path = PathEstimator()
    path.observe(CHAIN, 0.0)
    path.observe(AgentActivated(agent="a"), 0.0)
    assert set(path.observe(AgentActivated(agent="b"), 1.0)) == {"b", "c", "d"}
    assert [due(path, agent) for agent in "cd"] == [3.0, 5.0]
    assert set(path.observe(AgentActivated(agent="c"), 9.0)) == {"c", "d"}
    assert due(path, "d") == 11.0


def test_a_late_branch_does_not_delay_what_another_branch_reaches() -> None:
    path = PathEstimator()
    path.observe(PathDeclared(edges=[("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("d", "e")]), 0.0)
    path.observe(AgentActivated(agent="a"), 0.0)
    path.observe(AgentActivated(agent="b"), 5.0)
    assert [due(path, agent) for agent in "cde"] == [1.0, 2.0, 3.0]


def test_an_activation_touches_only_what_it_changes() -> None:
    path = PathEstimator()
    nodes = [f"n{i}" for i in range(1000)]
    path.observe(PathDeclared(nodes=nodes), 0.0)
    path.observe(AgentActivated(agent="n500"), 0.0)
    path.go_on()
    assert set(path.observe(AgentActivated(agent="n498"), 0.0)) == {"n498", "n499"}
    assert list(path.observe(AgentActivated(agent="n501"), 1.0)) == ["n501"]


def test_an_active_agent_is_due_until_its_invocation_of_that_clock_value_or_later() -> None:
    path = PathEstimator()
    path.observe(CHAIN, 0.0)
    path.observe(InvocationStarted(agent="a"), 4.0)
    path.observe(AgentActivated(agent="a"), 5.0)
    assert due(path, "a") == 5.0
    assert list(path.observe(InvocationStarted(agent="a"), 5.0)) == ["a"]
    assert due(path, "a") is None
    path.observe(InvocationStarted(agent="b"), 6.0)
    assert due(path, "b") == 7.0, "an invocation before the path reaches the agent is another matter"
    path.observe(AgentActivated(agent="b"), 6.0)
    assert due(path, "b") is None


def test_a_second_activation_counts_only_on_a_path_declared_again() -> None:
    path = PathEstimator()
    path.observe(CHAIN, 0.0)
    path.observe(AgentActivated(agent="a"), 0.0)
    path.observe(AgentActivated(agent="a"), 9.0)
    assert due(path, "b") == 2.0
    assert list(path.observe(CHAIN, 10.0)) == ["a", "b", "c", "d"]
    assert due(path, "b") is None
    path.observe(AgentActivated(agent="a"), 10.0)
    assert due(path, "b") == 12.0


def test_the_nearest_of_several_paths_counts() -> None:
    path = PathEstimator()
    path.observe(PathDeclared(path="slow", nodes=["a", "c"], hop=9.0), 0.0)
    path.observe(PathDeclared(path="fast", nodes=["b", "c"], hop=3.0), 0.0)
    path.observe(AgentActivated(agent="a", path="slow"), 0.0)
    path.observe(AgentActivated(agent="b", path="fast"), 0.0)
    assert path.estimate("c") == Estimate(3.0, 0.8, "path fast")
    assert path.estimate("c", earliest=4.0) == Estimate(9.0, 0.8, "path slow")
    path.observe(PathDeclared(path="fast", nodes=["b"]), 1.0)
    assert due(path, "c") == 9.0


def test_of_paths_that_are_named_anew_each_time_the_last_are_kept() -> None:
    path = PathEstimator()
    for number in range(MOST_PATHS + 1):
        declared = PathDeclared(path=f"round {number}", nodes=[f"a{number}", f"b{number}"])
        touched = path.observe(declared, 0.0)
        assert list(touched) == (["a0", "b0"] if number == MOST_PATHS else [])
        path.observe(AgentActivated(agent=f"a{number}", path=f"round {number}"), 0.0)
    assert path.estimate("b0") is None
    assert due(path, "b1") == due(path, f"b{MOST_PATHS}") == 1.0
    path.observe(PathDeclared(path="round 1", nodes=["c"]), 0.0)
    path.observe(PathDeclared(path="one more", nodes=["d"]), 0.0)
    assert path.estimate("b2") is None and due(path, "b3") == 1.0


def test_idle_and_released_agents_have_no_estimate() -> None:
    path = PathEstimator()
    path.observe(CHAIN, 0.0)
    path.observe(AgentActivated(agent="a"), 0.0)
    assert list(path.observe(AgentIdled(agent="b"), 1.0)) == ["b"]
    assert list(path.observe(AgentReleased(agent="c"), 1.0)) == ["c"]
    assert [due(path, agent) for agent in "bcd"] == [None, None, 6.0]
    assert "b" in path.observe(AgentActivated(agent="b"), 3.0)
    assert [due(path, agent) for agent in "bcd"] == [3.0, None, 7.0]


def test_an_unknown_path_or_agent_is_no_error() -> None:
    path = PathEstimator()
    assert list(path.observe(AgentActivated(agent="a", path="none"), 0.0)) == []
    path.observe(CHAIN, 0.0)
    assert list(path.observe(AgentActivated(agent="stranger"), 4.0)) == ["stranger"]
    assert due(path, "stranger") == 4.0
    path.observe(CHAIN, 5.0)
    assert due(path, "stranger") is None


class Oracle:
    """The definition, worked out anew with networkx's multi-source shortest paths."""

    def __init__(self) -> None:
        self.graphs: dict[str, tuple[nx.DiGraph[str], float]] = {}
        self.active: dict[str, dict[str, float]] = {}
        self.invoked: dict[str, float] = {}

    def observe(self, event: Event, now: float) -> None:
        if isinstance(event, PathDeclared):
            graph: nx.DiGraph[str] = nx.DiGraph(event.edges or [])
            if event.nodes:
                nx.add_path(graph, event.nodes)
            self.graphs[event.path] = (graph, event.hop)
            self.active[event.path] = {}
        elif isinstance(event, AgentActivated) and event.path in self.graphs:
            self.active[event.path].setdefault(event.agent, now)
        elif isinstance(event, InvocationStarted):
            self.invoked[event.agent] = now

    def due(self, agent: str) -> float | None:
        dues = (self._due_on(name, agent) for name in self.graphs)
        return min((due for due in dues if due is not None), default=None)

    def _due_on(self, name: str, agent: str) -> float | None:
        graph, hop = self.graphs[name]
        active = self.active[name]
        if agent in active:
            return None if self.invoked.get(agent, -1.0) >= active[agent] else active[agent]
        weighted: nx.DiGraph[str] = nx.DiGraph()
        weighted.add_weighted_edges_from((u, v, hop) for u, v in graph.edges if v not in active)
        weighted.add_weighted_edges_from(("source", f, clock) for f, clock in active.items())
        if agent not in weighted or "source" not in weighted:
            return None
        lengths: dict[str, float] = nx.multi_source_dijkstra_path_length(weighted, {"source"})
        return lengths.get(agent)


@given(feeds(st.one_of(paths, chains, activations, activations, activations, invocations), max_size=25))
def test_incremental_equals_recomputed(feed: Feed) -> None:
    path, oracle = PathEstimator(), Oracle()
    known: dict[str, float | None] = dict.fromkeys(AGENTS)
    for event, now in feed:
        changed = path.observe(event, now)
        oracle.observe(event, now)
        for agent in AGENTS:
            value = due(path, agent)
            assert same(value, oracle.due(agent), lambda a, b: math.isclose(a, b, abs_tol=1e-9))
            assert agent in changed or value == known[agent], "a change must be reported"
            known[agent] = value


@given(feeds(st.one_of(paths, chains, activations, activations, activations, invocations), max_size=25))
def test_work_in_turns_comes_to_what_work_at_once_does(feed: Feed) -> None:
    path, oracle = PathEstimator(), Oracle()
    known: dict[str, float | None] = dict.fromkeys(AGENTS)
    with patch.object(path_module, "STEPS_PER_EVENT", 1):
        for event, now in feed:
            path.observe(event, now)
            oracle.observe(event, now)
    known = {agent: due(path, agent) for agent in AGENTS}
    named: dict[str, None] = {}
    while path.behind:
        named.update(dict.fromkeys(path.go_on(1)))
    for agent in AGENTS:
        value = due(path, agent)
        assert same(value, oracle.due(agent), lambda a, b: math.isclose(a, b, abs_tol=1e-9))
        assert agent in named or value == known[agent], "a change must be reported"


def test_an_event_about_a_long_path_is_bounded_work_and_reaches_the_nearest_first() -> None:
    path, nodes = PathEstimator(), [f"n{i}" for i in range(5000)]
    path.observe(PathDeclared(nodes=nodes), 0.0)
    assert list(path.observe(AgentActivated(agent="n0"), 0.0)) == ["n0"]
    assert due(path, "n0") == 0.0, "who is activated is due at once, though the path is still being read"
    path.go_on(4999)
    for place in range(1, 4):
        reached = path.observe(AgentActivated(agent=nodes[place]), 0.0)
        assert len(reached) <= STEPS_PER_EVENT
    assert due(path, nodes[3]) == 0.0 and due(path, nodes[200]) is not None and due(path, nodes[4000]) is None
    turns = 0
    while path.behind:
        assert len(path.go_on(1000)) <= 1000
        turns += 1
    assert [due(path, agent) for agent in nodes[4:]] == [float(place - 3) for place in range(4, 5000)]
    assert turns < 30, "activations that wait meanwhile spread together"


def test_who_is_released_while_a_path_is_read_stays_gone() -> None:
    path, nodes = PathEstimator(), [f"n{i}" for i in range(1000)]
    path.observe(PathDeclared(nodes=nodes), 0.0)
    path.observe(AgentReleased(agent="n998"), 0.0)
    path.observe(AgentActivated(agent="n0"), 0.0)
    while path.behind:
        path.go_on(100)
    assert due(path, "n998") is None and due(path, "n999") == 999.0 and not path._released


def test_a_path_that_is_forgotten_leaves_nothing_behind() -> None:
    path, nodes = PathEstimator(), [f"n{i}" for i in range(1000)]
    path.observe(PathDeclared(nodes=nodes), 0.0)
    path.observe(AgentActivated(agent="n0"), 0.0)
    path.observe(PathDeclared(nodes=["a", "b"]), 0.0)
    while path.behind:
        path.go_on(100)
    assert due(path, "n0") is due(path, "n999") is None and path._paths_of.keys() == {"a", "b"}
