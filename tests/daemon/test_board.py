from __future__ import annotations

import math

from scalesim_daemon.board import Due, DueBoard, Dues
from scalesim_daemon.clock import StreamClock
from scalesim_estimators import Estimate


def clock(now: float = 0.0, pace: float = 1.0) -> StreamClock:
    made = StreamClock("step")
    made.now, made.pace = now, pace
    return made


def due(at: float, of: StreamClock, source: str = "x") -> Due:
    return Due(at, 1.0, "first", of, source)


def test_a_tick_changes_the_distance_and_nothing_stored() -> None:
    board, now = DueBoard(), clock(0, pace=2.0)
    board.put(board.place("s/a"), "x", due(5, now))
    assert board.seconds("s/a") == 10.0
    now.now = 4
    assert board.seconds("s/a") == 2.0
    now.now = 5.5
    assert board.seconds("s/a") == 0.0


def test_the_nearest_stream_decides_by_wall_time() -> None:
    board = DueBoard()
    board.put(board.place("s/a"), "slow", due(2, clock(pace=10.0), "slow"))
    board.put(board.place("s/a"), "fast", due(5, clock(pace=1.0), "fast"))
    assert board.seconds("s/a") == 5.0
    board.put(board.place("s/a"), "fast", None)
    assert board.seconds("s/a") == 20.0
    board.put(board.place("s/a"), "slow", None)
    assert (board.get("s/a"), board.seconds("s/a"), len(board)) == (None, math.inf, 0)


def test_only_what_is_new_is_a_change() -> None:
    board, now = DueBoard(), clock()
    assert not board.put(board.place("s/a"), "x", None)
    assert board.put(board.place("s/a"), "x", due(5, now))
    assert not board.put(board.place("s/a"), "x", due(5, now))
    assert board.put(board.place("s/a"), "x", due(5, clock()))
    assert board.put(board.place("s/a"), "y", due(5, now, "y"))
    assert board.put(board.place("s/a"), "x", None)
    assert not board.put(board.place("s/a"), "x", None)
    assert board.put(board.place("s/a"), "y", None)
    assert len(board) == 0


def test_what_is_overdue_is_far() -> None:
    board, now = DueBoard(), clock(0)
    board.put(board.place("s/a"), "x", due(5, now))
    now.now = 6
    assert board.seconds("s/a") == 0.0
    now.now = 6.5
    assert board.seconds("s/a") == math.inf
    found = board.get("s/a")
    assert found is not None and found.basis == "overdue: first"


def test_an_overdue_stream_does_not_hide_another() -> None:
    board, now = DueBoard(), clock(10)
    board.put(board.place("s/a"), "x", due(5, now))
    board.put(board.place("s/a"), "y", due(13, now, "y"))
    assert board.seconds("s/a") == 3.0


def test_who_is_due_alike_has_the_same_due_and_few_of_them_are_kept() -> None:
    dues = Dues(clock(), "x")
    assert dues[Estimate(5, 1.0, "first")] is dues[Estimate(5, 1.0, "first")]
    assert dues[Estimate(5, 1.0, "first")] == Due(5, 1.0, "first", dues.clock, "x")
    assert dues[None] is None
    for at in range(3000):
        found = dues[Estimate(at, 0.5, "first")]
        assert found is not None and found.estimate == Estimate(at, 0.5, "first")
    assert dues[None] is None
    assert len(dues) <= 1024
