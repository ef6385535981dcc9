from __future__ import annotations

from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalesim_client.events import AgentReleased, Event, MemoryBound, MemoryUnbound
from scalesim_daemon.gate import Opened, Said, Stream
from scalesim_daemon.population import Memory, Population
from scalesim_daemon.prefixes import Prefixes

STREAM = Stream("src", "sim", 1, "step")


def population(most: int) -> Population:
    made = Population()
    made.memories.prefixes = Prefixes(most)
    made.apply([Opened(STREAM)], 0.0)
    return made


def say(to: Population, *events: Event) -> None:
    to.apply([Said(STREAM, events)], 0.0)


def memory(of: Population, agent: str) -> Memory:
    found = of.agents[f"sim/{agent}"].memory
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("form", "content", "size"),
    [("token_ids", [1, 2, 3], 12), ("text", "You are Ben.", 12), ("messages", [{"role": "user"}], 19)],
)
def test_a_content_is_kept_once_and_for_as_long_as_somebody_has_it(
    form: str, content: Any, size: int
) -> None:
    told = population(1000)
    say(told, *(MemoryBound(agent=agent, **{form: content[:]}) for agent in "ab"))
    assert getattr(memory(told, "a"), form) is getattr(memory(told, "b"), form)
    assert (len(told.memories.prefixes), told.memories.prefixes.bytes) == (1, size)
    say(told, AgentReleased(agent="a"))
    assert (len(told.memories.prefixes), told.memories.prefixes.bytes) == (1, size)
    say(told, MemoryUnbound(agent="b"))
    assert (len(told.memories.prefixes), told.memories.prefixes.bytes) == (0, 0)


def test_messages_whose_keys_come_in_another_order_are_kept_once() -> None:
    told = population(1000)
    say(told, MemoryBound(agent="a", messages=[{"role": "user", "content": "x"}]))
    say(told, MemoryBound(agent="a", messages=[{"content": "x", "role": "user"}]))
    assert len(told.memories.prefixes) == 1
    say(told, AgentReleased(agent="a"))
    assert (len(told.memories.prefixes), told.memories.prefixes.bytes) == (0, 0)


def test_forms_and_loras_tell_contents_and_memories_apart() -> None:
    told = population(1000)
    say(told, MemoryBound(agent="a", text="x"), MemoryBound(agent="b", token_ids=[ord("x")]))
    say(told, MemoryBound(agent="c", text="x", lora="/c", lora_name="c"))
    assert len(told.memories.prefixes) == 2 and memory(told, "a") != memory(told, "c")
    assert memory(told, "a").text is memory(told, "c").text


def test_what_binds_no_prefix_is_one_object_for_all() -> None:
    told = population(0)
    say(told, *(MemoryBound(agent=agent, model="base") for agent in "ab"))
    assert memory(told, "a") is memory(told, "b") and told.memories.prefixes.dropped == 0


def test_what_was_bound_longest_ago_makes_room_and_is_unknown_until_it_is_bound_again() -> None:
    told = population(80)
    for agent in "abc":
        say(told, MemoryBound(agent=agent, token_ids=[ord(agent)] * 8, model="base"))
    assert told.take_changes().bound == ["sim/a", "sim/b", "sim/c", "sim/a"]
    assert memory(told, "a") == Memory(model="base")
    assert memory(told, "b").token_ids == array("I", [ord("b")] * 8)
    assert (told.memories.prefixes.bytes, told.memories.prefixes.dropped) == (64, 1)
    say(told, MemoryBound(agent="a", token_ids=[ord("a")] * 8, model="base"))
    assert told.take_changes().bound == ["sim/a", "sim/b"]
    assert memory(told, "b") == Memory(model="base")


def test_what_is_larger_than_all_the_room_is_unknown_at_once() -> None:
    told = population(10)
    say(told, MemoryBound(agent="a", text="much too long"))
    assert memory(told, "a") == Memory() and told.memories.prefixes.bytes == 0


@given(
    st.lists(
        st.tuples(st.sampled_from("abcd"), st.sampled_from(["bind", "unbind", "release"]), st.integers(1, 9)),
        max_size=40,
    )
)
def test_the_bound_holds_and_the_account_is_right(moves: list[tuple[str, str, int]]) -> None:
    told = population(48)
    for agent, move, size in moves:
        match move:
            case "bind":
                say(told, MemoryBound(agent=agent, token_ids=[size] * size))
            case "unbind":
                say(told, MemoryUnbound(agent=agent))
            case "release":
                say(told, AgentReleased(agent=agent))
        kept = {
            tuple(known.memory.token_ids)
            for known in told.agents.values()
            if known.memory is not None and known.memory.token_ids is not None
        }
        assert len(told.memories.prefixes) == len(kept)
        assert told.memories.prefixes.bytes == sum(4 * len(one) for one in kept) <= 48
