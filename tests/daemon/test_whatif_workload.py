"""Simulations drawn and recorded, and how good their announcements are."""

from collections import Counter
from pathlib import Path
from statistics import fmean

import pytest

from scalesim_daemon.whatif.workload import (
    Drawn,
    Foresight,
    Gaps,
    Prompt,
    Workload,
    WorkloadError,
    read_trace,
)

EXACT = Foresight()


def traced(path: Path, text: str, foresight: Foresight = EXACT) -> Workload:
    path.write_text(text)
    return read_trace(path, foresight, Prompt(), 1.0, None, 1)


def told_and_true(workload: Workload) -> list[tuple[int, int]]:
    """Return what was said of each gap, and how long it was, for those that end within the simulation."""
    coming: dict[str, int] = {}
    pairs = []
    for now in range(len(workload.steps) - 1, -1, -1):
        for call in workload.steps[now]:
            if call.agent in coming and call.told is not None:
                pairs.append((call.told, coming[call.agent] - now))
        coming.update((call.agent, now) for call in workload.steps[now])
    return pairs


@pytest.mark.parametrize("gaps", Gaps)
def test_a_fifth_of_the_agents_calls_in_each_step_and_each_has_called_before_it_counts(gaps: Gaps) -> None:
    workload = Drawn(agents=200, steps=50, gaps=gaps).workload(EXACT)
    counted = workload.steps[workload.warmup :]
    assert len(counted) == 50
    assert fmean(map(len, counted)) == pytest.approx(40, rel=0.05)
    warm = {call.agent for step in workload.steps[: workload.warmup] for call in step}
    assert warm == set(workload.agents)


@pytest.mark.parametrize("gaps", Gaps)
def test_exact_announcements_are_true(gaps: Gaps) -> None:
    workload = Drawn(agents=50, steps=30, gaps=gaps).workload(EXACT)
    pairs = told_and_true(workload)
    assert pairs and all(told == true for told, true in pairs)
    assert {true for _, true in pairs} == ({5} if gaps is Gaps.PERIODIC else set(range(1, 10)))
    # Of what lies beyond the end too something is said.
    assert all(call.told is not None for step in workload.steps for call in step)
    first = {agent: now for now, step in reversed([*enumerate(workload.steps)]) for agent, _ in step}
    assert workload.opening == tuple(first[agent] for agent in workload.agents)


def test_announcements_are_off_by_no_more_than_the_error() -> None:
    pairs = told_and_true(Drawn(agents=100, steps=60).workload(Foresight(error=0.5)))
    assert all(max(1, true * 0.5 - 0.5) <= told <= true * 1.5 + 0.5 for told, true in pairs)
    assert sum(told != true for told, true in pairs) > len(pairs) / 2


def test_a_misled_share_tells_nothing() -> None:
    drawn = Drawn(agents=200, steps=100)
    pairs = told_and_true(drawn.workload(Foresight(misled=1.0)))
    right = sum(told == true for told, true in pairs) / len(pairs)
    # Of nine gaps that are as frequent each, one in nine is hit.
    assert right == pytest.approx(1 / 9, abs=0.03)
    assert Counter(told for told, _ in pairs).keys() == set(range(1, 10))


def test_how_good_announcements_are_doesnt_change_who_calls() -> None:
    drawn = Drawn(agents=30, steps=10)
    one, other = drawn.workload(EXACT), drawn.workload(Foresight(error=0.9, misled=0.3))
    assert [[call.agent for call in step] for step in one.steps] == [
        [call.agent for call in step] for step in other.steps
    ]
    assert drawn.workload(EXACT) == one


def test_a_trace_is_played_as_it_was_recorded(tmp_path: Path) -> None:
    workload = traced(tmp_path / "t.csv", "step,agent,note\n0,ann,x\n0,bob,\n2,ann,\n")
    assert workload.agents == ("ann", "bob")
    assert [list(map(tuple, step)) for step in workload.steps] == [
        [("ann", 2), ("bob", None)],
        [],
        [("ann", None)],
    ]
    assert workload.warmup == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "first line must name"),
        ("agent,when\nann,1\n", "first line must name"),
        ("step,agent\n", "no step with a call"),
        ("step,agent\none,ann\n", "line 2: write a whole number"),
        ("step,agent\n1,\n", "line 2: write"),
        ("step,agent\n1\n", "line 2: write"),
        ("step,agent\n2,ann\n1,bob\n", "line 3: step 1 comes after step 2"),
        ("step,agent\n1,ann\n1,ann\n", "line 3: ann calls twice in step 1"),
        ("step,agent\n99999999,ann\n", "line 2: step 99999999 is a million steps after"),
    ],
)
def test_a_bad_trace_is_explained(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match=said):
        traced(tmp_path / "t.csv", text)


def test_a_missing_or_binary_trace_is_explained(tmp_path: Path) -> None:
    (tmp_path / "b.csv").write_bytes(b"step,agent\n\xff\xfe")
    for name in ("b.csv", "none.csv"):
        with pytest.raises(WorkloadError, match=name):
            read_trace(tmp_path / name, EXACT, Prompt(), 1.0, None, 1)
