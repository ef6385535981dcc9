"""What one daemon tells, another knows: two populations and the words between them, without Redis."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from scalesim_client.events import EVENT_TYPES, Event
from scalesim_daemon.fleet.population import SharedPopulation
from scalesim_daemon.fleet.words import (
    Bound,
    Head,
    Owner,
    Told,
    Word,
    content_of,
    hash_of,
    memory_of,
    pack,
    read_told,
    read_word,
)
from scalesim_daemon.gate import Closed, Opened, Restated, Said, Stream
from scalesim_daemon.population import Memory

HOME = Stream("s", "s", 1, "step")
ABROAD = Stream("s of s, told", "s", 1, "step", "a")
AGENTS = ("x", "y", "z")


def event(kind: str, **fields: Any) -> Event:
    return EVENT_TYPES[kind](**fields)


def events() -> st.SearchStrategy[Event]:
    agent = st.sampled_from(AGENTS)
    ahead = st.integers(0, 9).map(float)
    return st.one_of(
        st.builds(lambda a, u: event("agent.activity_started", agent=a, for_=u), agent, ahead),
        *(
            st.builds(lambda a, kind=kind: event(kind, agent=a), agent)
            for kind in (
                "invocation.started",
                "invocation.finished",
                "agent.woken",
                "agent.idled",
                "agent.released",
            )
        ),
        st.builds(lambda a, t: event("memory.bound", agent=a, token_ids=[t, 2]), agent, st.integers(0, 3)),
        st.builds(lambda a: event("memory.bound", agent=a, lora="/l/one", lora_name="one"), agent),
        st.builds(lambda a: event("memory.unbound", agent=a), agent),
        st.builds(lambda n: event("step.advanced", now=n), st.integers(0, 20).map(float)),
    )


class Pair:
    """A daemon that hears the source, and one that is told of it."""

    def __init__(self) -> None:
        self.a, self.b = SharedPopulation(), SharedPopulation()
        self.b.here = lambda _: True
        self.a.apply([Opened(HOME)], 0.0)
        self.told: set[str] = set()
        self.waiting: set[str] = set()
        self.wall = 0.0

    def hear(self, *said: Event) -> None:
        self.wall += 1.0
        self.a.apply([Said(HOME, said)], self.wall)
        changes = self.a.take_changes()
        self.waiting |= changes.dues.union(
            changes.started, changes.finished, changes.woken, changes.bound, changes.unbound
        )

    def tell(self, *, lost: bool = False) -> None:
        """Send a word of what is waiting, or lose it, and tell all anew."""
        keys = (self.waiting | self.told) if lost else self.waiting
        calls = {key.partition("/")[2]: n for (_, key), n in self.a.calls.items()}
        woken = [key.partition("/")[2] for _, key in self.a.woken]
        self.a.calls.clear()
        self.a.woken.clear()
        told = {key.partition("/")[2]: self.a.told("s", key) for key in keys}
        word = Word(self.a.head("s", whole=True), told, {} if lost else calls, [] if lost else woken)
        self.b.foretell(ABROAD, read_word(pack(word)), self.wall, anew=lost)
        self.told |= keys
        self.waiting.clear()

    def bring(self) -> None:
        for key, wanted in list(self.b.lacking.items()):
            content = self.a.content(wanted)
            assert content is not None
            self.b.brought(key, content)

    def check(self) -> None:
        a, b = self.a, self.b
        assert set(b.agents) <= set(a.agents)
        assert a.in_flight() == b.in_flight()
        for key, agent in a.agents.items():
            ours, theirs = a.board.get(key), b.board.get(key)
            assert (ours is None) == (theirs is None)
            if key not in b.agents:
                # Of whom nothing is known but the name, nothing is told.
                assert (ours, agent.in_flight, agent.memory) == (None, 0, None)
                continue
            if ours is not None and theirs is not None:
                assert (ours.estimate, ours.distance) == (theirs.estimate, theirs.distance)
            assert agent.in_flight == b.agents[key].in_flight
            assert agent.memory == b.agents[key].memory
        assert {
            name: list(agents) for name, agents in a.memories.loras.items()
        }.keys() == b.memories.loras.keys()
        chances = {one.chance() for one in (*a.qualities().values(), *b.qualities().values())}
        assert len(chances) == 1


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.lists(events(), max_size=4), st.sampled_from(("tell", "wait", "lose"))), max_size=12
    )
)
def test_who_is_told_knows_what_the_teller_knows(course: list[tuple[list[Event], str]]) -> None:
    pair = Pair()
    for said, then in course:
        pair.hear(*said)
        if then != "wait":
            pair.tell(lost=then == "lose")
            pair.bring()
            pair.check()
    pair.tell()
    pair.bring()
    pair.check()
    changes = pair.b.take_changes()
    assert len(changes.started) - len(changes.finished) == pair.b.in_flight()
    pair.b.unheard(ABROAD.source)
    assert not pair.b.agents and not pair.b.memories.loras and not pair.b.lacking and not len(pair.b.board)


def test_a_call_between_two_words_is_told() -> None:
    pair = Pair()
    pair.hear(event("agent.registered", agent="x"))
    pair.hear(event("invocation.started", agent="x"), event("invocation.finished", agent="x"))
    pair.hear(event("agent.woken", agent="x"))
    pair.tell()
    changes = pair.b.take_changes()
    assert (changes.started, changes.finished, changes.woken) == (["s/x"], ["s/x"], ["s/x"])
    assert pair.b.agents["s/x"].recency == 1


def test_memory_is_known_where_it_is_needed_and_content_where_it_was_brought() -> None:
    pair = Pair()
    here: set[str] = set()
    pair.b.here = here.__contains__
    pair.hear(event("memory.bound", agent="x", text="long ago", lora="/l/x", lora_name="x", model="base"))
    pair.tell()
    assert pair.b.agents["s/x"].memory is None and not pair.b.lacking
    here.add("s/x")
    pair.b.hold_where_needed("s/x")
    assert pair.b.agents["s/x"].memory == Memory(lora="/l/x", lora_name="x", model="base")
    (wanted,) = pair.b.lacking.values()
    with pytest.raises(ValueError, match="isn't what its hash says"):
        pair.b.brought("s/x", pack({"text": "another"}))
    content = pair.a.content(wanted)
    assert content is not None
    pair.b.brought("s/x", content)
    assert pair.b.agents["s/x"].memory == pair.a.agents["s/x"].memory
    pair.b.take_changes()
    pair.hear(event("agent.activity_started", agent="x", for_=3.0))
    pair.tell()
    assert not pair.b.take_changes().bound, "what hasn't changed isn't bound again"
    here.clear()
    pair.b.hold_where_needed("s/x")
    assert pair.b.agents["s/x"].memory is None
    assert pair.b.take_changes().unbound == ["s/x"]


def test_what_a_source_here_says_and_what_is_told_stand_beside_each_other() -> None:
    """A simulation that moves from one daemon to another is never unknown."""
    pair = Pair()
    pair.hear(
        event("memory.bound", agent="x", text="t"), event("agent.activity_started", agent="x", for_=5.0)
    )
    pair.tell()
    pair.bring()
    moved = Stream("s", "s", 1, "step")
    said = [event("memory.bound", agent="x", text="t"), event("agent.activity_started", agent="x", for_=5.0)]
    pair.b.apply([Opened(moved), Restated(moved, [(one, None) for one in said], 0.0)], pair.wall)
    pair.b.take_changes()
    pair.b.unheard(ABROAD.source)
    changes = pair.b.take_changes()
    assert not changes.unbound and not changes.closed
    assert pair.b.agents["s/x"].memory == Memory(text="t")
    assert pair.b.board.get("s/x") is not None
    pair.b.apply([Closed(moved)], pair.wall)
    assert not pair.b.agents


def test_a_source_that_begins_anew_by_another_clock_takes_its_memory_along() -> None:
    """Word by word: whoever isn't told anew yet is unknown, and whatever is asked of it meanwhile is nothing."""
    pair = Pair()
    pair.hear(*(event("memory.bound", agent=agent, text=agent) for agent in AGENTS))
    pair.tell()
    anew = SharedPopulation()
    stream = Stream("s", "s", 2, "wall_seconds")
    anew.apply([Opened(stream), Said(stream, [event("memory.bound", agent="x", text="x")])], 0.0)
    word = Word(anew.head("s", whole=False), {"x": anew.told("s", "s/x")})
    pair.b.foretell(Stream(ABROAD.source, "s", 2, "wall_seconds", "a"), word, 1.0)
    assert set(pair.b.agents) == {"s/x"} == set(pair.b.lacking)
    for agent in AGENTS:
        pair.b.hold_where_needed(f"s/{agent}")
    assert set(pair.b.agents) == {"s/x"}


def test_what_is_told_is_not_told_on() -> None:
    pair = Pair()
    pair.hear(event("invocation.started", agent="x"), event("agent.woken", agent="x"))
    pair.tell()
    assert not pair.b.calls and not pair.b.woken and not pair.b.own_streams()
    assert pair.b.own_sources("s/x") == []


def test_other_daemons_gateways_are_no_source_that_tells_of_calls() -> None:
    population = SharedPopulation()
    head = SharedPopulation()
    head.apply([Opened(HOME)], 0.0)
    word = Word(head.head("s", whole=True))
    population.foretell(Stream("gateway/s@a of s, told", "s", 0, "step", "a"), word, 0.0)
    population.foretell(ABROAD, word, 0.0)
    assert set(population.sources("s")) == {ABROAD.source}


@settings(deadline=None, max_examples=25)
@given(
    st.one_of(
        st.builds(Memory, text=st.text()),
        st.builds(lambda m: Memory(messages=(m,)), st.dictionaries(st.text(), st.text())),
        st.builds(lambda t: Memory(text=t, lora="/x", lora_name="x", cache_salt="s", model="m"), st.text()),
    )
)
def test_contents_come_back_as_they_were(memory: Memory) -> None:
    content = content_of(memory)
    assert content is not None
    bound = Bound(memory.lora, memory.lora_name, memory.model, memory.cache_salt, hash_of(content))
    assert memory_of(bound, content) == memory


def test_owners_are_in_order_and_read_as_they_were_written() -> None:
    owners = [Owner(1, 9, 9, "b"), Owner(2, 1, 1, "a"), Owner(2, 2, 0, "a b c")]
    assert sorted(owners, reverse=True) == owners[::-1]
    assert [Owner.read(str(owner).encode()) for owner in owners] == owners
    assert read_told(pack(Told(due=2.5))) == Told(due=2.5)


HEAD = Head("step", 0.0, 1.0, 1.0, 1.0, tells_calls=True, whole=True)


@pytest.mark.parametrize(
    "word",
    [
        *(Word(HEAD, {"x": Told(due=due)}) for due in (math.nan, math.inf, -math.inf)),
        *(Word(HEAD, {"x": Told(1.0, confidence)}) for confidence in (math.nan, -0.1, 1.1)),
        *(Word(HEAD, {"x": Told(in_flight=calls)}) for calls in (-1, 10**12)),
        *(Word(HEAD, calls={"x": calls}) for calls in (-1, 10**12)),
        *(Word(replace(HEAD, pace=pace)) for pace in (math.nan, math.inf, 0.0, -1.0)),
        *(Word(replace(HEAD, now=now)) for now in (math.nan, math.inf)),
        *(Word(replace(HEAD, step=step)) for step in (math.nan, math.inf, -1.0)),
        *(Word(replace(HEAD, chance=chance)) for chance in (math.nan, 2.0)),
    ],
    ids=str,
)
def test_what_cannot_be_so_is_refused(word: Word) -> None:
    with pytest.raises(msgspec.ValidationError):
        read_word(pack(word))


@pytest.mark.parametrize("text", [b"1 2 -3 a", b"1 1e400 3 a", b"1 99999999999999999999 3 a", b"1 2 a"])
def test_an_owner_that_no_daemon_wrote_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        Owner.read(text)


def test_what_a_daemon_tells_can_be_read_whatever_it_hears() -> None:
    population = SharedPopulation()
    population.apply([Opened(HOME), Said(HOME, [event("invocation.started", agent="x")] * 12_000)], 0.0)
    told = population.told("s", "s/x")
    assert told is not None and read_told(pack(told)) == told
