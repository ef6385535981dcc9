from __future__ import annotations

import math
import random
from unittest.mock import patch

import pytest
from estimator_events import AGENTS, Feed, feeds, invocations, moves, releases, rests, same
from hypothesis import given
from hypothesis import strategies as st

import scalesim_estimators.interaction as interaction_module
from scalesim_client.events import AgentIdled, AgentMoved, AgentReleased, Event, InvocationStarted
from scalesim_estimators import Estimate, InteractionEstimator
from scalesim_estimators.interaction import MOST_NEIGHBOURS, PAIRS_PER_EVENT
from scalesim_estimators.motion import Contacts, Motion, contacts, walk

Point = tuple[float, float]


def moved(
    agent: str, xy: Point, to: Point | None = None, speed: float = 1.0, vision: float | None = 2.0
) -> AgentMoved:
    return AgentMoved(agent=agent, xy=xy, destination=to, speed=speed, vision=vision)


def due(interaction: InteractionEstimator, agent: str, earliest: float = -math.inf) -> float | None:
    estimate = interaction.estimate(agent, earliest)
    return None if estimate is None else estimate.due


def test_both_are_due_when_they_meet() -> None:
    interaction = InteractionEstimator()
    assert list(interaction.observe(moved("a", (0, 0), (20, 0)), 10.0)) == []
    assert set(interaction.observe(moved("b", (20, 0), (0, 0), speed=3.0), 10.0)) == {"a", "b"}
    assert due(interaction, "a") == due(interaction, "b") == pytest.approx(14.5)
    estimate = interaction.estimate("a")
    assert estimate is not None
    assert estimate == Estimate(estimate.due, 0.6, "interaction with b")


def test_one_destination_gives_distance_over_speed() -> None:
    interaction = InteractionEstimator()
    interaction.observe(moved("a", (0, 0), vision=None), 0.0)
    interaction.observe(moved("b", (30, 40), (0, 0), speed=2.0, vision=None), 5.0)
    assert due(interaction, "a") == due(interaction, "b") == 5.0 + 50 / 2


def test_a_turn_of_one_changes_the_other() -> None:
    interaction = InteractionEstimator()
    interaction.observe(moved("a", (0, 0)), 0.0)
    interaction.observe(moved("b", (20, 0), (0, 0)), 0.0)
    assert due(interaction, "a") == pytest.approx(18.0)
    assert set(interaction.observe(moved("b", (15, 0), (15, 90)), 5.0)) == {"a", "b"}
    assert due(interaction, "a") is due(interaction, "b") is None


@pytest.mark.parametrize(
    "there",
    [
        AgentMoved(agent="b", place="cafe"),
        AgentMoved(agent="b", place="park", destination=(0, 0), speed=1.0, vision=2.0),
        AgentMoved(agent="b", xy=(1, 0), vision=0.0),
        AgentMoved(agent="b", xy=(1e300, 0), vision=2.0),
        AgentMoved(agent="b", xy=(0, 0), destination=(1, -1e300), speed=1e300, vision=1e300),
    ],
)
def test_who_meets_nobody(there: AgentMoved) -> None:
    interaction = InteractionEstimator()
    interaction.observe(AgentMoved(agent="a", xy=(0, 0), place="cafe", vision=2.0), 0.0)
    interaction.observe(there, 0.0)
    assert due(interaction, "a") is due(interaction, "b") is None


def test_who_is_met_again_does_not_count_until_they_have_parted() -> None:
    interaction = InteractionEstimator()
    interaction.observe(moved("a", (0, 0)), 0.0)
    interaction.observe(moved("b", (10, 0), (0, 0)), 0.0)
    assert due(interaction, "a") == pytest.approx(8.0)
    assert list(interaction.observe(InvocationStarted(agent="a"), 9.0)) == ["a"]
    assert due(interaction, "a") is None
    assert due(interaction, "b") == pytest.approx(8.0), "the other has not called yet"
    interaction.observe(moved("b", (0, 0)), 12.0)
    assert due(interaction, "a") is None
    assert due(interaction, "b") == pytest.approx(8.0), "a meeting under way keeps its clock value"
    interaction.observe(moved("b", (50, 0)), 20.0)
    interaction.observe(moved("b", (50, 0), (0, 0)), 30.0)
    assert due(interaction, "a") == pytest.approx(78.0)


def test_an_invocation_uses_up_a_meeting_of_the_same_clock_value() -> None:
    interaction = InteractionEstimator()
    interaction.observe(moved("a", (0, 0)), 3.0)
    interaction.observe(moved("b", (1, 0)), 3.0)
    assert due(interaction, "a") == due(interaction, "b") == 3.0
    interaction.observe(InvocationStarted(agent="a"), 3.0)
    assert due(interaction, "a") is None
    assert due(interaction, "b") == 3.0


def test_meetings_within_the_cooldown_do_not_count() -> None:
    interaction = InteractionEstimator(cooldown=10.0)
    interaction.observe(moved("a", (0, 0)), 0.0)
    interaction.observe(InvocationStarted(agent="a"), 0.0)
    interaction.observe(moved("b", (11.5, 0), (0, 0)), 0.0)
    interaction.observe(moved("c", (0, 12), (0, 0)), 0.0)
    assert due(interaction, "b") == pytest.approx(9.5)
    assert interaction.estimate("a") == Estimate(10.0, 0.6, "interaction with c")


def test_a_missed_meeting_gives_way_to_the_next() -> None:
    interaction = InteractionEstimator()
    interaction.observe(moved("a", (0, 0)), 0.0)
    interaction.observe(moved("b", (5, 0), (0, 0)), 0.0)
    interaction.observe(moved("c", (0, 9), (0, 0)), 0.0)
    assert due(interaction, "a") == pytest.approx(3.0)
    assert due(interaction, "a", earliest=4.0) == pytest.approx(7.0)
    assert due(interaction, "a", earliest=8.0) is None


def test_who_walks_away_from_one_to_another_is_named_though_the_nearest_meeting_is_the_old_one() -> None:
    interaction = InteractionEstimator()
    for agent, x in (("a", 0.0), ("b", 0.0), ("c", 50.0)):
        interaction.observe(moved(agent, (x, 0.0)), 0.0)
    assert "a" in interaction.observe(moved("a", (0.0, 0.0), (100.0, 0.0)), 10.0)
    assert due(interaction, "a") == 0.0
    assert due(interaction, "a", earliest=9.0) == pytest.approx(58.0)


def test_an_idle_agent_is_due_again_once_it_moves_and_is_met_by_others_meanwhile() -> None:
    interaction = InteractionEstimator()
    interaction.observe(moved("a", (0, 0)), 0.0)
    interaction.observe(moved("b", (10, 0), (0, 0)), 0.0)
    assert list(interaction.observe(AgentIdled(agent="a"), 1.0)) == ["a"]
    assert due(interaction, "a") is None
    assert due(interaction, "b") == pytest.approx(8.0)
    assert "a" in interaction.observe(moved("a", (0, 0)), 2.0)
    assert due(interaction, "a") == pytest.approx(8.0)


def test_a_released_agent_is_met_no_more() -> None:
    interaction = InteractionEstimator()
    interaction.observe(moved("a", (0, 0)), 0.0)
    interaction.observe(moved("b", (10, 0), (0, 0)), 0.0)
    assert set(interaction.observe(AgentReleased(agent="a"), 1.0)) == {"a", "b"}
    assert due(interaction, "a") is due(interaction, "b") is None


class Oracle:
    """The definition with every pair compared after every move, and no index."""

    def __init__(self, cooldown: float) -> None:
        self.cooldown = cooldown
        self.motions: dict[str, Motion] = {}
        self.near: dict[frozenset[str], Contacts] = {}
        self.invoked: dict[str, float] = {}
        self.idle: set[str] = set()

    def observe(self, event: Event, now: float) -> None:
        if isinstance(event, InvocationStarted):
            self.invoked[event.agent] = now
            self.idle.discard(event.agent)
        elif isinstance(event, AgentIdled):
            self.idle.add(event.agent)
        elif isinstance(event, AgentReleased):
            self.motions.pop(event.agent, None)
            self.invoked.pop(event.agent, None)
            self.idle.discard(event.agent)
        elif isinstance(event, AgentMoved):
            self.idle.discard(event.agent)
            self.motions.pop(event.agent, None)
            if event.xy is not None and event.vision != 0:
                self.motions[event.agent] = walk(now, event.xy, event.destination, event.speed, event.vision)
                self._compare(event.agent, now)
        self.near = {pair: near for pair, near in self.near.items() if pair <= self.motions.keys()}

    def _compare(self, agent: str, now: float) -> None:
        for other in self.motions.keys() - {agent}:
            near = list(contacts(self.motions[agent], self.motions[other], now))
            under_way = [b for b, e in self.near.pop(frozenset((agent, other)), ()) if b <= now <= e]
            if near and near[0][0] <= now and under_way:
                near[0] = (under_way[0], near[0][1])
            self.near[frozenset((agent, other))] = tuple(near)

    def due(self, agent: str, earliest: float) -> float | None:
        last = self.invoked.get(agent, -math.inf)
        starts = [begin for pair, near in self.near.items() if agent in pair for begin, _ in near]
        counted = [b for b in starts if b > last and b >= last + self.cooldown and b >= earliest]
        return None if agent in self.idle else min(counted, default=None)


@given(
    feeds(st.one_of(moves, moves, moves, invocations, rests, releases), max_size=40),
    st.sampled_from([0.0, 2.0]),
    st.floats(-3, 3),
    st.sampled_from([1, interaction_module.PAIRS_PER_EVENT]),
)
def test_incremental_equals_all_pairs_compared(feed: Feed, cooldown: float, grace: float, pairs: int) -> None:
    interaction, oracle = InteractionEstimator(cooldown), Oracle(cooldown)
    known: dict[str, Estimate | None] = dict.fromkeys(AGENTS)
    for event, now in feed:
        with patch.object(interaction_module, "PAIRS_PER_EVENT", pairs):
            changed = dict.fromkeys(interaction.observe(event, now))
        while interaction.behind:
            changed.update(dict.fromkeys(interaction.go_on(1)))
        oracle.observe(event, now)
        for agent in AGENTS:
            estimate = interaction.estimate(agent)
            assert same(due(interaction, agent), oracle.due(agent, -math.inf), lambda a, b: a == b)
            late = now - grace
            assert same(due(interaction, agent, late), oracle.due(agent, late), lambda a, b: a == b)
            assert agent in changed or estimate == known[agent], "a change must be reported"
            known[agent] = estimate


def test_one_move_among_ten_thousand_spread_agents_examines_a_neighbourhood(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random(7)
    interaction = InteractionEstimator()

    def anywhere() -> Point:
        return rng.uniform(0, 2000), rng.uniform(0, 2000)

    examined = 0

    def counted(a: Motion, b: Motion, start: float) -> Contacts:
        nonlocal examined
        examined += 1
        return contacts(a, b, start)

    monkeypatch.setattr(interaction_module, "contacts", counted)
    places = {f"agent {i}": anywhere() for i in range(10_000)}
    for agent, (x, y) in places.items():
        to = (x + rng.uniform(-30, 30), y + rng.uniform(-30, 30))
        interaction.observe(moved(agent, (x, y), to, vision=5.0), 0.0)
    assert examined < 10_000 * 20
    for agent in rng.sample(sorted(places), 200):
        examined = 0
        x, y = places[agent]
        interaction.observe(moved(agent, (x, y), (x + 30, y), vision=5.0), 1.0)
        assert examined < 100
    examined = 0
    interaction.observe(moved("agent 0", (0, 0), (2000, 2000), vision=5.0), 1.0)
    assert examined < 1000, "a walk across the whole ground examines what lies along it"


def test_in_a_crowd_that_sees_all_of_itself_a_move_is_bounded_work(monkeypatch: pytest.MonkeyPatch) -> None:
    rng, compared = random.Random(3), 0
    interaction = InteractionEstimator()

    def counted(a: Motion, b: Motion, start: float) -> Contacts:
        nonlocal compared
        compared += 1
        return contacts(a, b, start)

    monkeypatch.setattr(interaction_module, "contacts", counted)
    agents = [f"agent {number}" for number in range(300)]
    moves = 0
    for now, agent in enumerate(agents + rng.sample(agents, 100)):
        before = compared
        moves += 1
        interaction.observe(
            moved(agent, (rng.uniform(0, 9), rng.uniform(0, 9)), (5, 5), vision=20.0), float(now)
        )
        assert compared - before <= PAIRS_PER_EVENT
    while interaction.behind:
        before = compared
        interaction.go_on(100)
        assert compared - before <= 100
    assert compared <= moves * MOST_NEIGHBOURS
    met = [len(others) for others in interaction._meetings.values()]
    assert MOST_NEIGHBOURS <= max(met) <= 2 * MOST_NEIGHBOURS
    assert all(due(interaction, agent) is not None for agent in agents), "each meets somebody"


def test_a_turn_works_at_no_more_than_it_may() -> None:
    interaction = InteractionEstimator()
    for number in range(100):
        interaction.observe(moved(f"agent {number}", (0, 0)), 0.0)
    turns = 0
    while interaction.behind:
        assert len(interaction.go_on(50)) <= 50
        turns += 1
    assert turns > 10


@given(feeds(st.one_of(moves, moves, moves, invocations, rests, releases), max_size=40))
def test_what_is_said_anew_is_not_compared_again_and_changes_nothing(feed: Feed) -> None:
    interaction, said = InteractionEstimator(), dict[str, list[tuple[Event, float]]]()
    for event, now in feed:
        interaction.observe(event, now)
        if isinstance(event, AgentMoved):
            said[event.agent] = [(event, now)]
        elif isinstance(event, AgentIdled):
            said.setdefault(event.agent, []).append((event, now))
        elif isinstance(event, AgentReleased):
            said.pop(event.agent, None)
        elif isinstance(event, InvocationStarted):
            said[event.agent] = [one for one in said.get(event.agent, []) if isinstance(one[0], AgentMoved)]
    while interaction.behind:
        interaction.go_on()
    before = [interaction.estimate(agent) for agent in AGENTS]
    interaction.say_anew()
    with patch.object(interaction_module, "contacts", side_effect=AssertionError("compared again")):
        for event, now in (one for events in said.values() for one in events):
            interaction.observe(event, now)
        interaction.all_said(feed[-1][1] if feed else 0.0)
        assert not interaction.behind
    assert [interaction.estimate(agent) for agent in AGENTS] == before


def test_what_is_not_said_again_holds_no_longer() -> None:
    interaction = InteractionEstimator()
    interaction.observe(moved("a", (0, 0), (10, 0)), 0.0)
    interaction.observe(moved("b", (10, 0), (0, 0)), 0.0)
    interaction.observe(AgentIdled(agent="a"), 0.0)
    interaction.say_anew()
    interaction.observe(moved("a", (0, 0), (10, 0)), 0.0)
    interaction.observe(moved("b", (10, 0), (0, 0)), 0.0)
    assert interaction.all_said(1.0) == {"a": None}, "nobody says that it is idle"
    assert due(interaction, "a") == due(interaction, "b") == 4.0
    interaction.say_anew()
    interaction.observe(moved("a", (0, 0), (10, 0)), 0.0)
    assert set(interaction.all_said(1.0)) == {"a", "b"}
    assert due(interaction, "a") is due(interaction, "b") is None
