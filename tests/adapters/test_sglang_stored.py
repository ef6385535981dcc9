"""The bookkeeping of SGLang's storage: it holds what it says, in slots of its own, and what is needed latest goes
first."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from scalesim_adapters.dues import DueTable
from scalesim_adapters.sglang.plugin.stored import StoredPages

WALL = 0.5


def table_of(**dues: float) -> DueTable:
    """Return a table that was heard a moment before `WALL`."""
    table = DueTable()
    told = {agent: ("step", due) for agent, due in dues.items()}
    assert table.apply({"type": "snapshot", "clocks": {"step": (0.0, 1.0)}, "dues": told}, 0.0)
    return table


def prompt(agent: str, pages: int = 3) -> list[bytes]:
    return [f"{agent}{number}".encode() for number in range(pages)]


def call(pages: StoredPages, agent: str, keys: list[bytes] | None = None) -> None:
    """Let a request of the agent have these pages, which are then taken in where there is room."""
    keys = keys or prompt(agent)
    pages.used(agent, agent, keys)
    for key in reversed(keys):
        if pages.slot(key) is None:
            pages.room(key, WALL)
    pages.touch(keys)


def held(pages: StoredPages, *agents: str) -> list[int]:
    """Return how much of each agent's prompt is held."""
    return [sum(pages.slot(key) is not None for key in prompt(agent)) for agent in agents]


def test_the_agent_who_calls_latest_gives_way_tail_first() -> None:
    pages = StoredPages(7, {}, table_of(near=1.0, far=9.0, new=5.0))
    call(pages, "near")
    call(pages, "far")
    call(pages, "new")
    assert held(pages, "near", "far", "new") == [3, 1, 3]
    assert pages.slot(b"far0") is not None


def test_nobody_nearer_gives_way() -> None:
    pages = StoredPages(3, {}, table_of(near=1.0, far=9.0))
    call(pages, "near")
    for agent in ("far", "unheard of"):
        call(pages, agent)
        assert held(pages, "near", agent) == [3, 0]


def test_what_is_kept_from_before_goes_before_all_until_somebody_uses_it() -> None:
    pages = StoredPages(6, dict(enumerate(prompt("old") + prompt("older"))), table_of(old=9.0, new=9.0))
    assert len(pages) == 6
    pages.used("old", "1", prompt("old"))
    call(pages, "new")
    assert held(pages, "old", "older", "new") == [3, 0, 3]


def test_a_shared_page_counts_for_the_nearest_of_its_users() -> None:
    pages = StoredPages(4, {}, table_of(near=1.0, far=9.0, new=5.0))
    call(pages, "near", [b"shared"])
    call(pages, "far", [b"shared", *prompt("far")])
    call(pages, "new")
    assert pages.slot(b"shared") is not None
    assert held(pages, "far", "new") == [0, 3]


def test_without_a_word_from_the_daemon_who_called_longest_ago_gives_way() -> None:
    pages = StoredPages(6, {}, DueTable())
    for agent in ("a", "b", "a", "c"):
        call(pages, agent)
    assert held(pages, "a", "b", "c") == [3, 0, 3]


@settings(max_examples=200)
@given(
    st.integers(1, 6),
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 4), st.floats(0, 20)), max_size=30),
    st.booleans(),
)
def test_each_page_that_is_held_has_a_slot_of_its_own(
    count: int, calls: list[tuple[str, int, float]], heard: bool
) -> None:
    table = table_of() if heard else DueTable()
    pages = StoredPages(count, {0: b"old"}, table)
    seen = {b"old"}
    for agent, length, due in calls:
        if heard:
            told = {"type": "delta", "clocks": {}, "dues": {agent: ("step", due)}}
            assert table.apply(told, 0.0)
        call(pages, agent, prompt(agent, length))
        seen |= set(prompt(agent, length))
        slots = [slot for key in seen if (slot := pages.slot(key)) is not None]
        assert len(slots) == len(set(slots)) == len(pages) <= count
        assert set(slots) <= set(range(count))
    pages.clear()
    assert len(pages) == 0
    assert {pages.room(key, WALL) for key in prompt("new", count)} == set(range(count))
