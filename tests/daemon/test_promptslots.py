"""The account of an engine's slots, beside a model of the engine that keeps whole prompts in them."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalesim_adapters.base import EngineAdapter, MemoryKind
from scalesim_daemon.acts import Acts
from scalesim_daemon.loras import LoraLibrary
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.population import Population
from scalesim_daemon.promptslots import Prefix, PromptSlots, common
from scalesim_daemon.view import EngineView

NAMESPACE = (None, None)
LENGTH = 40
# How much of its prompt an agent shares with the others of its family: less than a tenth, or more.
FAMILIES = {"lone": 0, "near": 3, "kin": 20}
AGENTS = [f"{family}{number}" for family in FAMILIES for number in range(3)]


def tokens(agent: str) -> list[int]:
    family, number = agent[:-1], int(agent[-1])
    shared = FAMILIES[family]
    head = [len(family)] * shared
    return head + [100 * (1 + AGENTS.index(agent)) + number] * (LENGTH - shared)


@dataclass
class Engine:
    """llama.cpp's rule over whole prompts, written from its description."""

    count: int
    prompts: dict[int, list[int]] = field(default_factory=dict)
    ages: list[int] = field(default_factory=list)

    def takes(self, prompt: list[int], index: int | None = None) -> None:
        index = self._chosen(prompt) if index is None else index
        self.prompts[index] = prompt
        self.ages = [other for other in self.ages if other != index] + [index]

    def _chosen(self, prompt: list[int]) -> int:
        shares = [(common(prompt, held) / len(prompt), -index) for index, held in self.prompts.items()]
        share, index = max(shares, default=(0.0, 0))
        if share > 0.1:
            return -index
        never = [index for index in range(self.count) if index not in self.prompts]
        return never[-1] if never else self.ages[0]

    def holds(self, agent: str) -> bool:
        return any(held[:LENGTH] == tokens(agent) for held in self.prompts.values())


def slots(count: int = 3) -> PromptSlots:
    account = PromptSlots(count)
    for agent in AGENTS:
        account.declare(agent, Prefix(NAMESPACE, array("I", tokens(agent))))
    return account


@settings(deadline=None)
@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from(AGENTS), st.sampled_from(["call", "ours", "theirs"]))),
)
def test_the_account_is_right_while_all_is_announced(count: int, moves: list[tuple[str, str]]) -> None:
    account, engine = slots(count), Engine(count)
    for agent, move in moves:
        if move == "call":
            account.started(agent)
            engine.takes([*tokens(agent), 1, 2])
        else:
            index = account.place(agent, frozenset(AGENTS), ours=move == "ours")
            assert index is not None
            account.started(agent, index)
            engine.takes(tokens(agent), index if move == "ours" else None)
        account.released(agent)
        assert [bool(account.resident_blocks(one)) for one in AGENTS] == [engine.holds(one) for one in AGENTS]
        assert account.resident == len(engine.prompts)
        assert sum(group.blocks for group in account.groups()) == account.resident


@settings(deadline=None)
@given(st.sets(st.sampled_from(AGENTS)), st.booleans(), st.lists(st.sampled_from(AGENTS), min_size=1))
def test_no_place_costs_anyone_but_the_victims(victims: set[str], ours: bool, calls: list[str]) -> None:
    account = slots()
    for agent in calls:
        account.started(agent)
        account.released(agent)
    before = {agent for agent in AGENTS if account.resident_blocks(agent)}
    for agent in AGENTS:
        index = account.place(agent, victims, ours=ours)
        if index is None or account.resident_blocks(agent):
            continue
        account.started(agent, index)
        account.released(agent)
        assert before - {one for one in AGENTS if account.resident_blocks(one)} <= victims
        return


def test_what_is_in_use_is_no_place_and_who_waits_comes_next() -> None:
    account = slots(1)
    account.started("lone0")
    assert account.place("lone1", frozenset(AGENTS), ours=True) is None
    assert list(account.groups()) == []
    account.started("lone1")
    account.released("lone0")
    assert not account.resident_blocks("lone0")
    account.released("lone1")
    assert account.resident_blocks("lone1")


def test_what_was_cut_short_is_continued_where_it_is() -> None:
    account = slots(2)
    account.started("lone0", 1)
    account.released("lone0", size=LENGTH / 2)
    assert not account.resident_blocks("lone0")
    assert account.resident_tokens("lone0") == LENGTH // 2
    assert account.place("lone0", frozenset(), ours=True) == 1
    assert [set(group.users) for group in account.groups()] == [set()]


def test_strangers_make_a_slot_nobodys() -> None:
    account = slots(2)
    account.told([-1, -1])
    for agent, index in (("lone0", 0), ("lone1", 1)):
        account.started(agent, index)
        account.released(agent)
    account.told([1, 2])
    assert account.unpredicted == 0
    account.told([1, 3])
    assert (account.resident_blocks("lone0"), account.resident_blocks("lone1")) == (1, 0)
    assert account.unpredicted == 1


def test_a_slot_that_the_engine_has_emptied_is_free() -> None:
    account = slots(2)
    account.started("lone0", 0)
    account.released("lone0")
    account.told([4, -1])
    assert account.resident_blocks("lone0")
    account.told([-1, -1])
    assert (account.resident, account.resident_blocks("lone0"), account.unpredicted) == (0, 0, 1)


def test_a_call_that_took_another_slot_than_foreseen_is_found_there() -> None:
    account = slots(2)
    for agent, index in (("lone0", 0), ("lone1", 1)):
        account.started(agent, index)
        account.released(agent)
    account.told([1, 2])
    account.started("lone2")
    account.released("lone2")
    assert not account.resident_blocks("lone0")
    account.told([1, 3])
    assert [account.resident_blocks(agent) for agent in ("lone1", "lone2")] == [0, 1]
    assert account.place("lone2", frozenset(), ours=True) == 1


def test_a_call_that_took_a_used_slot_in_place_of_an_empty_one_leaves_that_empty() -> None:
    account = slots(2)
    account.started("lone0", 0)
    account.released("lone0")
    account.told([1, -1])
    account.started("lone1")
    account.released("lone1")
    account.told([2, -1])
    assert [account.resident_blocks(agent) for agent in ("lone0", "lone1")] == [0, 1]
    assert account.resident == 1


def test_a_restart_empties_the_slots_and_keeps_the_prefixes() -> None:
    account = slots(2)
    account.started("lone0")
    account.cleared()
    account.released("lone0")
    assert (account.resident, account.prefix_blocks("lone0")) == (0, 1)


def test_text_and_conversations_have_a_length_too() -> None:
    text = Prefix(NAMESPACE, text="x" * 41)
    talk = Prefix(NAMESPACE, messages=({"role": "system", "content": "x" * 41},))
    assert (text.length, talk.length) == (11, 11)
    assert text.similarity(Prefix(NAMESPACE, text="x" * 20)) == pytest.approx(20 / 41)
    assert text.similarity(talk) == text.similarity(Prefix(("lora", None), text="x" * 41)) == 0


@pytest.mark.parametrize("action", [Action.LOAD, Action.TOUCH])
def test_a_prefix_without_tokens_is_one_piece_loaded_or_touched(action: Action, tmp_path: Path) -> None:
    view = EngineView("engine", quiet_share=0.0)
    library = LoraLibrary(tmp_path / "links", tmp_path / "staging", 1 << 20)
    acts = Acts(cast(EngineAdapter, None), view, Population(), library)
    step = Step(action, MemoryKind.PREFIX_KV, "sim/a", 0, 1, 1.0, "a test")
    (piece,) = acts._pieces(step, Prefix(NAMESPACE, text="who I am"), "base", None)
    assert (piece.text, piece.token_ids) == ("who I am", ())
