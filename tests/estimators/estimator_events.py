"""Random event streams for property tests: lists of (event, clock value), the clock never going back."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st

from scalesim_client.events import (
    ActivityStarted,
    AgentActivated,
    AgentIdled,
    AgentMoved,
    AgentReleased,
    AgentWoken,
    Event,
    InvocationStarted,
    PathDeclared,
    PlanDeclared,
)

Feed = list[tuple[Event, float]]

AGENTS = list("abcdef")
agents = st.sampled_from(AGENTS)
amounts = st.one_of(st.integers(0, 20).map(float), st.floats(0, 20))
points = st.one_of(
    st.tuples(st.integers(-6, 6).map(float), st.integers(-6, 6).map(float)),
    st.tuples(st.floats(-6, 6), st.floats(-6, 6)),
)

moves = st.builds(
    AgentMoved,
    agent=agents,
    xy=st.none() | points,
    destination=st.none() | points,
    speed=st.none() | st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    vision=st.none() | st.sampled_from([0.0, 0.5, 1.0, 2.0]),
)
invocations = st.builds(InvocationStarted, agent=agents)
rests = st.builds(AgentIdled, agent=agents)
releases = st.builds(AgentReleased, agent=agents)
wakes = st.builds(AgentWoken, agent=agents)
activities = st.one_of(
    st.builds(ActivityStarted, agent=agents, for_=amounts),
    st.builds(ActivityStarted, agent=agents, until=amounts),
)
paths = st.builds(
    PathDeclared,
    path=st.sampled_from(["p", "q"]),
    edges=st.lists(st.tuples(agents, agents), max_size=12),
    hop=st.sampled_from([0.0, 0.5, 1.0, 4.0]),
)
chains = st.builds(PathDeclared, path=st.just("q"), nodes=st.lists(agents, max_size=6))
activations = st.builds(AgentActivated, agent=agents, path=st.sampled_from(["p", "q"]))
bounds = st.none() | amounts
plans = st.one_of(
    st.builds(PlanDeclared, agents=st.lists(agents, max_size=8), at=st.none() | amounts, not_before=bounds),
    st.lists(st.tuples(agents, st.floats(0, 1)), max_size=6).flatmap(
        lambda pairs: st.builds(
            PlanDeclared,
            agents=st.just([agent for agent, _ in pairs]),
            probabilities=st.just([p for _, p in pairs]),
            not_before=bounds,
        )
    ),
)
everything = st.one_of(
    moves, invocations, rests, releases, wakes, activities, paths, chains, activations, plans
)


def feeds(events: st.SearchStrategy[Event], max_size: int = 30) -> st.SearchStrategy[Feed]:
    """Return a strategy for feeds of `events`, up to three clock units apart."""
    steps = st.one_of(st.just(0.0), st.just(1.0), st.floats(0, 3))
    return st.lists(st.tuples(events, steps), max_size=max_size).map(_timed)


def _timed(steps: list[tuple[Event, float]]) -> Feed:
    now, feed = 0.0, []
    for event, passed in steps:
        now += passed
        feed.append((event, now))
    return feed


def same(a: float | None, b: float | None, close: Callable[[float, float], bool]) -> bool:
    """Return whether two dues are both missing or close."""
    return a is b if a is None or b is None else close(a, b)
