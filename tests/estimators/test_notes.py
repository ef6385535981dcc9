from __future__ import annotations

import math
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalesim_estimators import Estimate, notes
from scalesim_estimators.notes import Notes, held_before
from scalesim_estimators.roster import Roster

Said = tuple[str, float | None, float | None, bool]

said = st.tuples(
    st.sampled_from("abc"),
    st.none() | st.sampled_from([1.0, 5.0, 9.0]),
    st.none() | st.sampled_from([2.0, 5.0]),
    st.booleans(),
)


def told(words: list[Said], kept: int) -> list[tuple[float, ...]]:
    """Return the dues that were held of all agents just before the latest clock values, after each word, where so many
    agents' are kept until they are packed. A word may come with the clock's next value."""
    agents, now, held = Roster(), 0.0, []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(notes, "_SAID_KEPT", kept)
        noted = Notes(agents, 2, 1.0)
        noted.oldest = 0.0
        for agent, first, second, later in words:
            now += later
            estimates = [None if due is None else Estimate(due, 0.5, "") for due in (first, second)]
            noted.note((agent,), [(place, [one]) for place, one in enumerate(estimates)], now)
            for one, clock in product("abc", (now, now - 1, now - 2)):
                held.append(held_before(noted.held(one, now), clock).dues)
    return held


@given(st.lists(said, max_size=30))
def test_what_was_held_is_the_same_however_many_words_wait_to_be_packed(words: list[Said]) -> None:
    assert told(words, 1) == told(words, 100)


def test_of_what_is_said_at_one_clock_value_the_last_word_holds() -> None:
    noted = Notes(Roster(), 1, 1.0)
    for due in (7.0, 8.0, 9.0):
        noted.note(("a",), [(0, [Estimate(due, 1.0, "")])], 3.0)
    assert [(row.since, row.dues) for row in noted.held("a")] == [(3.0, (9.0,)), (-math.inf, (math.inf,))]
    assert noted.lapsed(9.5) == ["a"]


def test_who_has_left_is_not_noted() -> None:
    agents = Roster()
    noted = Notes(agents, 1, 1.0)
    noted.note(("a",), [(0, [Estimate(7.0, 1.0, "")])], 3.0)
    noted.forget("a")
    assert noted.lapsed(8.0) == [] and len(agents) == 0
