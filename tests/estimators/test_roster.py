from __future__ import annotations

import math
from collections.abc import Set

from hypothesis import given
from hypothesis import strategies as st

from scalesim_estimators.roster import Roster


def test_a_column_has_a_place_for_everybody_whenever_they_come() -> None:
    agents = Roster()
    assert agents.enter("a") == 0
    due, noted = agents.column("due", "d", math.inf), agents.objects("noted")
    assert agents.enter("b") == 1 and agents.enter("a") == 0
    due[1], noted[1] = 3.0, b"x"
    assert (list(due), noted) == ([math.inf, 3.0], [None, b"x"])
    assert (agents.find("b"), agents.find("c"), len(agents)) == (1, None, 2)


def test_a_column_of_a_known_name_is_emptied() -> None:
    agents = Roster()
    due = agents.column("due", "d", math.inf)
    due[agents.enter("a")] = 3.0
    assert agents.column("due", "d", math.inf) is due and list(due) == [math.inf]


def test_who_comes_back_has_the_same_number_and_nothing_under_it() -> None:
    agents = Roster()
    due = agents.column("due", "d", math.inf)
    agents.enter("a")
    due[agents.enter("b")] = 3.0
    agents.call("b", 2.0)
    agents.leave("b")
    assert agents.find("b") is None and agents.last_call("b") == -math.inf
    assert agents.enter("c") == 2
    assert agents.enter("b") == 1 and due[1] == math.inf


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 150)), max_size=500))
def test_no_number_goes_to_another_before_those_who_noted_it_were_told(moves: list[tuple[bool, int]]) -> None:
    agents = Roster()
    noted: dict[int, str] = {}

    def drop(left: Set[int]) -> None:
        for number in left:
            del noted[number]

    agents.tell_who_left(drop)
    here: set[str] = set()
    for comes, who in moves:
        agent = f"agent {who}"
        if comes:
            number = agents.enter(agent)
            assert noted.setdefault(number, agent) == agent == agents.names[number]
            here.add(agent)
        else:
            agents.leave(agent)
            here.discard(agent)
        assert len(agents) == len(here)
    assert len(agents.names) <= 2 * 151 + 65


def test_the_last_call_is_the_latest() -> None:
    agents = Roster()
    assert agents.last_call("a") == -math.inf
    agents.call("a", 2.0)
    agents.call("a", 1.0)
    assert agents.last_call("a") == 2.0
    agents.never_called("a")
    agents.never_called("b")
    assert agents.last_call("a") == -math.inf and agents.find("b") is None
