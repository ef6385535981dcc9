"""The table of dues inside an engine process: what it holds after whatever came in, and when it must not be used."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalesim_adapters.dues import DueFeed, DueListener, DueTable
from tests.adapters.dues_scene import Broadcaster, Clocks, Dues, frames, payload, until

AGENTS = [f"sim/a{number}" for number in range(6)]
CLOCKS = ["one", "two"]

numbers = st.floats(-1e6, 1e6)
clocks = st.dictionaries(st.sampled_from(CLOCKS), st.tuples(numbers, st.floats(1e-3, 1e3)))
dues = st.dictionaries(
    st.sampled_from(AGENTS), st.none() | st.tuples(st.sampled_from(CLOCKS), numbers | st.just(-math.inf))
)


class Truth:
    """What a daemon holds that has said all of this."""

    def __init__(self) -> None:
        self.clocks: dict[str, tuple[float, float]] = dict.fromkeys(CLOCKS, (0.0, 1.0))
        self.dues: dict[str, tuple[str, float]] = {}

    def change(self, clocks: Clocks, dues: Dues) -> None:
        self.clocks.update(clocks)
        for agent, due in dues.items():
            if due is None:
                self.dues.pop(agent, None)
            else:
                self.dues[agent] = due

    def seconds(self, agent: str) -> float:
        if agent not in self.dues:
            return math.inf
        clock, due = self.dues[agent]
        now, pace = self.clocks[clock]
        return max(0.0, (due - now) * pace)


def all_seconds(known: Truth | DueTable) -> dict[str, float]:
    return {agent: known.seconds(agent) for agent in AGENTS}


@given(st.lists(st.tuples(clocks, dues, st.booleans(), st.sampled_from(["come", "lost", "doubled"]))))
def test_whatever_is_lost_or_doubled_a_snapshot_tells_the_truth(
    said: list[tuple[Clocks, Dues, bool, str]],
) -> None:
    truth, table = Truth(), DueTable()
    feed = DueFeed(table)
    asked = True
    seq = 0
    for changed_clocks, changed_dues, restarts, fate in said:
        truth.change(changed_clocks, changed_dues)
        seq = seq + 1000 if restarts else seq + 1
        kind = "snapshot" if asked else "delta"
        message = frames(
            seq, payload(kind, *(truth.clocks, truth.dues) if asked else (changed_clocks, changed_dues))
        )
        if fate == "lost":
            continue
        asked = not feed.take(message, 0.0)
        if fate == "doubled":
            asked = not feed.take(message, 0.0)
        if not asked:
            assert all_seconds(table) == all_seconds(truth)
    assert feed.take(frames(seq + 5, payload("snapshot", truth.clocks, truth.dues)), 0.0)
    assert all_seconds(table) == all_seconds(truth)
    assert len(table) == len(truth.dues)


@given(st.lists(st.tuples(st.booleans(), st.booleans(), clocks, dues)))
def test_of_two_tellers_the_one_that_started_last_is_heard(
    said: list[tuple[bool, bool, Clocks, Dues]],
) -> None:
    """Each counts from the time of its start: what both tell is never mixed, whatever comes in between."""
    truths, numbers, table = [Truth(), Truth()], [1_000, 2_000_000], DueTable()
    feed = DueFeed(table)
    for teller in (0, 1):
        snapshot = payload("snapshot", truths[teller].clocks, truths[teller].dues)
        assert feed.take(frames(numbers[teller], snapshot), 0.0)
    for of_last, anew, changed_clocks, changed_dues in said:
        truth = truths[of_last]
        truth.change(changed_clocks, changed_dues)
        numbers[of_last] += 1
        whole = payload("snapshot", truth.clocks, truth.dues)
        told = whole if anew else payload("delta", changed_clocks, changed_dues)
        assert feed.take(frames(numbers[of_last], told), 0.0)
        assert all_seconds(table) == all_seconds(truths[1])


@given(st.lists(st.tuples(st.sampled_from(["snapshot", "delta"]), clocks, dues)))
def test_watches_tell_of_every_change_and_of_no_tick(said: list[tuple[str, Clocks, Dues]]) -> None:
    table = DueTable()
    table.apply(payload("snapshot", {"one": (0.0, 1.0)}, {AGENTS[0]: ("one", 1.0)}), 0.0)
    watch = table.watch()
    assert watch.take() == {AGENTS[0]}
    for kind, ticked, changed in said:
        before = {agent: table.due(agent) for agent in AGENTS}
        assert table.apply(payload(kind, ticked, changed), 0.0)
        assert watch.take() == {agent for agent in AGENTS if table.due(agent) != before[agent]}
        assert watch.take() == set()


def test_a_table_is_stale_before_its_first_snapshot_and_after_silence() -> None:
    table = DueTable(silence=2.0)
    assert table.stale(0.0)
    assert not table.apply(payload("delta"), 0.0)
    assert table.stale(0.0)
    assert table.apply(payload("snapshot"), 10.0)
    assert not table.stale(11.9)
    assert table.apply(payload("delta"), 11.5)
    assert not table.stale(13.4)
    assert table.stale(13.5)


def test_distances_are_seconds_on_the_clock_of_the_due() -> None:
    table = DueTable()
    table.apply(
        payload(
            "snapshot",
            {"steps": (10.0, 0.5)},
            {"s/a": ("steps", 14.0), "s/b": ("steps", 9.0), "s/c": ("?", 1.0)},
        ),
        0.0,
    )
    assert [table.seconds(agent) for agent in ("s/a", "s/b", "s/c", "s/d", None)] == [
        *(2.0, 0.0),
        *[math.inf] * 3,
    ]
    assert table.nearness("s/b") == -0.5
    table.apply(payload("delta", {"steps": (12.0, 0.25)}), 0.0)
    assert table.seconds("s/a") == 0.5


def test_who_speaks_after_a_silence_may_count_from_anywhere() -> None:
    feed = DueFeed(DueTable(silence=2.0))
    assert feed.take(frames(1000, payload("snapshot", {}, {"s/a": ("c", 1.0)})), 0.0)
    assert feed.take(frames(3, payload("snapshot")), 1.0), "an old message is passed over"
    assert len(feed.table) == 1
    assert not feed.take(frames(4, payload("delta")), 2.5)
    assert feed.take(frames(5, payload("snapshot")), 2.5)
    assert len(feed.table) == 0


GARBAGE: list[Any] = [
    {},
    {"type": "snapshot", "clocks": {}},
    payload("news"),
    payload("snapshot", {"c": (math.nan, 1.0)}),
    payload("snapshot", {"c": (0.0, 0.0)}),
    payload("snapshot", {"c": (0.0, math.inf)}),
    payload("snapshot", {}, {"s/a": ("c", math.nan)}),
    payload("snapshot", {}, {"s/a": "soon"}),
]


@pytest.mark.parametrize("said", GARBAGE)
def test_a_malformed_payload_changes_nothing(said: Any) -> None:
    table = DueTable()
    assert table.apply(payload("snapshot", {"c": (1.0, 1.0)}, {"s/a": ("c", 3.0)}), 0.0)
    assert not table.apply(said, 1.0)
    assert not DueFeed(table).take(frames(1, said), 1.0)
    assert table.seconds("s/a") == 2.0
    assert table.stale(2.0)


@given(st.lists(st.binary(max_size=40), max_size=5), st.binary(max_size=400))
def test_no_bytes_make_it_raise(parts: list[bytes], noise: bytes) -> None:
    feed = DueFeed(DueTable())
    assert not feed.take(parts, 0.0)
    whole = frames(1, payload("snapshot", {"c": (1.0, 1.0)}, {"s/a": ("c", 3.0)}))[2]
    at = len(noise) % len(whole)
    feed.take([b"dues", bytes(8), whole[:at] + noise + whole[at:]], 0.0)


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/dues"


@pytest.fixture
def listener(endpoint: str) -> Iterator[DueListener]:
    listener = DueListener(endpoint, silence=0.5)
    yield listener
    listener.close()


def test_a_listener_that_missed_something_asks_again(endpoint: str, listener: DueListener) -> None:
    daemon = Broadcaster(endpoint)
    assert daemon.hear() == b"\x01dues"
    daemon.say(payload("snapshot", {"c": (0.0, 1.0)}, {"s/a": ("c", 1.0)}))
    until(lambda: listener.table.seconds("s/a") == 1.0)
    daemon.seq += 1
    daemon.say(payload("delta", {}, {"s/a": ("c", 2.0)}))
    assert [daemon.hear(), daemon.hear()] == [b"\x00dues", b"\x01dues"]
    daemon.say(payload("snapshot", {"c": (0.0, 1.0)}, {"s/a": ("c", 3.0)}))
    until(lambda: listener.table.seconds("s/a") == 3.0)
    daemon.close()


def test_a_listener_goes_stale_in_silence_and_is_back_with_the_daemon(
    endpoint: str, listener: DueListener
) -> None:
    for due in (1.0, 2.0):
        daemon = Broadcaster(endpoint)
        assert daemon.hear() == b"\x01dues"
        daemon.send([b"dues", b"noise"])
        daemon.say(payload("snapshot", {"c": (0.0, 1.0)}, {"s/a": ("c", due)}))
        until(lambda due=due: listener.table.seconds("s/a") == due)
        heard = monotonic()
        daemon.close()
        until(lambda: listener.table.stale(monotonic()))
        assert monotonic() - heard >= 0.4


def test_an_impossible_endpoint_is_said_at_once() -> None:
    with pytest.raises(ValueError, match="no endpoint"):
        DueListener("5601")


def test_an_engine_gets_nothing_imported_that_it_lacks() -> None:
    def imported(modules: str) -> set[str]:
        code = f"import sys, {modules}; print(*{{name.partition('.')[0] for name in sys.modules}})"
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return set(answer.stdout.split()) - sys.stdlib_module_names

    ours = imported("scalesim_adapters.dueorder, scalesim_adapters.vllm.plugin.options")
    assert ours - imported("msgspec, zmq") == {"scalesim_adapters"}
