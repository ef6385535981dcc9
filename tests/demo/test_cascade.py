from __future__ import annotations

from pathlib import Path

import pytest

from bench.demo.prompts import PREFIX_TOKENS
from bench.workloads.cascade import Cascade
from bench.workloads.cascade_file import Account, read_accounts
from bench.workloads.provenance import provenance
from bench.workloads.recorded import recorded
from scalesim_client.codec import pack_event

TABLE = """,user_id,name,username,following_agentid_list,previous_tweets,user_char,description
0,900,ann,a,[],['look at this'],"Writes, at times
on two lines","the same"
1,901,bo,b,[0],[],Reads,
2,902,cy,c,"[0, 1]",[],,
3,903,di,d,[2],[],Waits,
4,904,ed,e,[],[],Alone,
"""
REAL = Path(__file__).parents[3] / "shared/traces/anonymous_topic_200_1h_False_Business_0.csv"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "cascade.csv"
    path.write_text(TABLE)
    return path


def test_reads_who_follows_whom_and_who_wrote(table: Path) -> None:
    accounts = read_accounts(table)
    assert list(accounts) == ["ann", "bo", "cy", "di", "ed"]
    assert accounts["ann"] == Account("Writes, at times\non two lines", (), ("look at this",))
    assert accounts["cy"] == Account("", ("ann", "bo"), ())


@pytest.mark.parametrize(
    ("old", "new", "match"), [("[0, 1]", "[0, 7]", "cy"), ("[2]", "2]", "di"), ("name", "n", "lacks columns")]
)
def test_refuses_what_is_no_such_table(table: Path, old: str, new: str, match: str) -> None:
    table.write_text(TABLE.replace(old, new))
    with pytest.raises(ValueError, match=match):
        read_accounts(table)


def test_the_author_writes_and_all_that_follow_read_it_in_turn(table: Path) -> None:
    calls = [
        (step.now, call.agent, call.cause) for step in Cascade(table, 10, 0.8).steps() for call in step.calls
    ]
    assert calls[0] == (1, "ann", "activity")
    assert {agent for now, agent, _ in calls if now == 4} - {"ann"} == {"bo", "cy"}
    assert ("di", "path") in [(agent, cause) for now, agent, cause in calls if now == 7]
    assert "ed" not in {agent for _, agent, _ in calls}


def test_what_is_read_is_in_the_prompt(table: Path) -> None:
    cascade = Cascade(table, 10)
    assert "look at this" in cascade.personas["ann"]
    memories = [call.memory for step in cascade.steps() for call in step.calls if call.cause == "path"]
    assert all("look at this" in memory for memory in memories)
    assert len(set(memories)) == len(memories)


def test_a_file_is_read_by_its_suffix(table: Path) -> None:
    assert len(list(recorded(table, 7).steps())) == 7
    with pytest.raises(ValueError, match=r"\.md or \.csv"):
        recorded(table.with_suffix(".txt"), None)


def test_an_unknown_file_has_no_source(table: Path) -> None:
    said = provenance(table)
    assert said["name"] == "cascade.csv"
    assert said["source"] is None


@pytest.mark.skipif(
    not REAL.exists(), reason="the recorded cascade isn't beside the project (../shared/traces)"
)
def test_plays_the_recorded_cascade() -> None:
    assert provenance(REAL)["source"] == "https://github.com/camel-ai/oasis (Apache-2.0)"
    cascade = recorded(REAL, 40)
    assert len(cascade.personas) == 111
    # Any byte-pair vocabulary makes a token of six bytes of such a text or fewer.
    assert all(len(persona.encode()) > 6 * PREFIX_TOKENS for persona in cascade.personas.values())
    steps = list(cascade.steps())
    calls = [call.agent for step in steps for call in step.calls]
    assert len(set(calls)) == 77
    assert max(len(step.calls) for step in steps) <= 22
    assert len(calls) / len(steps) > 15
    for step in steps:
        for event in (*step.before, *step.after):
            pack_event(event)
