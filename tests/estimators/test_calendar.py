from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from scalesim_estimators.calendar import Calendar

dues = st.one_of(st.integers(0, 40).map(float), st.floats(0, 40), st.just(math.inf))


@given(
    st.sampled_from([0.5, 1.0, 7.0]),
    st.lists(st.tuples(st.integers(0, 5), dues, st.floats(0, 3)), max_size=80),
)
def test_who_has_passed_is_found_once_whatever_changes(
    day: float, changes: list[tuple[int, float, float]]
) -> None:
    held: dict[int, float] = {}
    calendar: Calendar[int] = Calendar(day, lambda item: held.get(item, math.inf))
    before = 0.0
    for item, due, passed in changes:
        held[item] = due
        if due < math.inf:
            calendar.put(item, due)
        before += passed
        expected = sorted(item for item, due in held.items() if due < before)
        assert expected == [] or calendar.may_have_passed(before)
        found = calendar.passed(before)
        assert not calendar.may_have_passed(before)
        assert sorted(found) == expected and [held[one] for one in found] == sorted(
            held[one] for one in found
        )
        for one in found:
            del held[one]
    assert len(calendar) >= len([due for due in held.values() if due < math.inf])


@given(
    st.sampled_from([1.0, 7.0]),
    st.lists(st.tuples(st.lists(dues, max_size=12), st.floats(0, 3)), max_size=12),
    st.integers(1, 3),
)
def test_as_many_are_put_in_order_at_once_as_may_be_and_none_is_lost(
    day: float, said: list[tuple[list[float], float]], most: int
) -> None:
    held: dict[int, float] = {}
    calendar: Calendar[int] = Calendar(day, lambda item: held.get(item, math.inf))
    before = 0.0
    for together, passed in said:
        for due in together:
            item = len(held)
            held[item] = due
            if due < math.inf:
                calendar.put(item, due)
        before += passed
        expected = {item for item, due in held.items() if due < before}
        found: list[int] = []
        while calendar.may_have_passed(before):
            size = len(calendar)
            some = calendar.passed(before, most)
            assert len(some) <= most and len(calendar) >= size - 2 * most
            found += some
            held.update(dict.fromkeys(some, math.inf))
        assert len(found) == len(expected) and set(found) == expected


def test_what_no_longer_counts_takes_no_place_once_it_is_filled_anew() -> None:
    held = {"a": 0.0}
    calendar: Calendar[str] = Calendar(1.0, held.__getitem__)
    for due in range(100):
        held["a"] = float(due)
        calendar.put("a", float(due))
    assert len(calendar) == 100
    calendar.refill(held.items())
    assert len(calendar) == 1
    assert calendar.passed(99.0) == [] and calendar.passed(100.0) == ["a"] and len(calendar) == 0
