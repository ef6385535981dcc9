from __future__ import annotations

from scalesim_client.events import AgentIdled, AgentReleased, AgentWoken, InvocationStarted, PlanDeclared
from scalesim_estimators import DeclaredEstimator


def dues(declared: DeclaredEstimator, agents: str) -> list[float | None]:
    estimates = [declared.estimate(agent) for agent in agents]
    return [None if estimate is None else estimate.due for estimate in estimates]


def test_all_are_due_at_a_declared_step() -> None:
    declared = DeclaredEstimator()
    assert list(declared.observe(PlanDeclared(agents=["a", "b"], at=9.0), 2.0)) == ["a", "b"]
    assert dues(declared, "abc") == [9.0, 9.0, None]


def test_in_an_order_one_is_due_per_clock_unit_from_now() -> None:
    declared = DeclaredEstimator()
    declared.observe(PlanDeclared(agents=["a", "b", "c"]), 2.0)
    assert dues(declared, "abc") == [2.0, 3.0, 4.0]


def test_an_agent_may_stand_in_an_order_twice() -> None:
    declared = DeclaredEstimator()
    declared.observe(PlanDeclared(agents=["a", "b", "a"]), 0.0)
    assert dues(declared, "a") == [0.0]
    later = declared.estimate("a", earliest=1.0)
    assert later is not None
    assert later.due == 2.0
    assert list(declared.observe(InvocationStarted(agent="a"), 0.0)) == ["a"]
    assert dues(declared, "a") == [2.0]
    declared.observe(InvocationStarted(agent="a"), 2.0)
    assert dues(declared, "ab") == [None, 1.0]


def test_a_probability_gives_its_mean_waiting_time() -> None:
    declared = DeclaredEstimator()
    declared.observe(PlanDeclared(agents=["a", "b", "c"], probabilities=[0.5, 0.0, 1.0]), 10.0)
    assert dues(declared, "abc") == [12.0, None, 11.0]


def test_a_plan_replaces_the_earlier_one_and_names_the_agents_of_both() -> None:
    declared = DeclaredEstimator()
    declared.observe(PlanDeclared(agents=["a", "b"], not_before=5.0), 0.0)
    assert list(declared.observe(PlanDeclared(agents=["b", "c"]), 1.0)) == ["a", "b", "c"]
    assert dues(declared, "abc") == [None, 1.0, 2.0]
    assert declared.not_before("b") is None


def test_not_before_binds_the_agents_of_the_plan_until_they_call_or_are_woken() -> None:
    declared = DeclaredEstimator()
    plan = PlanDeclared(agents=["a", "b", "c"], probabilities=[0.0, 0.0, 1.0], not_before=8.0)
    declared.observe(plan, 0.0)
    assert [declared.not_before(agent) for agent in "abcd"] == [8.0, 8.0, 8.0, None]
    assert list(declared.observe(InvocationStarted(agent="a"), 3.0)) == ["a"]
    assert list(declared.observe(AgentWoken(agent="b"), 3.0)) == ["b"]
    assert list(declared.observe(AgentWoken(agent="b"), 3.0)) == []
    assert [declared.not_before(agent) for agent in "abc"] == [None, None, 8.0]
    assert dues(declared, "c") == [1.0]


def test_an_idle_or_released_agent_leaves_the_plan() -> None:
    declared = DeclaredEstimator()
    declared.observe(PlanDeclared(agents=["a", "b"], not_before=8.0), 0.0)
    assert list(declared.observe(AgentIdled(agent="a"), 1.0)) == ["a"]
    assert list(declared.observe(AgentReleased(agent="b"), 1.0)) == ["b"]
    assert dues(declared, "ab") == [None, None]
    assert declared.not_before("a") is declared.not_before("b") is None
    assert list(declared.observe(InvocationStarted(agent="a"), 2.0)) == []
