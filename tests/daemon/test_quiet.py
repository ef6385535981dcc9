from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalesim_adapters.base import Pressure
from scalesim_daemon.quiet import (
    LARGEST_CREDIT_SECONDS,
    MEMORY_SECONDS,
    OWN_PRICE,
    REBASE_SECONDS,
    SHARED_PRICE,
    Quiet,
)


def idle(finished: int, running: int = 0, waiting: int = 0) -> Pressure:
    return Pressure(running, waiting, finished)


def foreign(share: float = 0.1) -> Quiet:
    """An engine that has just served a request that nobody announced."""
    quiet = Quiet(share)
    for wall, finished in ((0.0, 0), (0.1, 1), (0.2, 1)):
        quiet.observe(idle(finished), 0, wall)
    assert quiet.shared(0.2)
    return quiet


def test_an_engine_never_measured_is_left_alone() -> None:
    assert not Quiet(0.1).may_start(0, 0.1, 0.0)


def test_an_engine_of_our_own_is_used_freely_while_nothing_waits() -> None:
    quiet = Quiet(0.0)
    quiet.observe(idle(3, running=1), 3, 0.0)
    assert quiet.may_start(0, 5.0, 0.0)
    assert not quiet.may_start(1, 5.0, 0.0)
    quiet.observe(idle(3, running=1, waiting=1), 4, 1.0)
    assert not quiet.may_start(0, 5.0, 1.0)


def paced(lulls: list[float]) -> tuple[Quiet, float]:
    """An engine of our own that was left alone for each of `lulls` seconds; the next lull begins at the returned wall
    time."""
    quiet, wall = Quiet(0.0), 0.0
    quiet.observe(idle(0), 0, wall)
    for lull in lulls:
        quiet.may_start(0, 0.2, wall)
        quiet.may_start(1, 0.2, wall + lull)
        wall += lull + 1.0
    return quiet, wall


def test_lulls_as_long_as_the_work_are_used_from_their_first_moment() -> None:
    for lulls in ([], [0.2], [0.01, 3.0, 3.0]):
        quiet, wall = paced(lulls)
        assert quiet.may_start(0, 0.2, wall)


def test_after_short_lulls_one_must_last_as_long_as_the_work() -> None:
    quiet, wall = paced([3.0, 0.01, 0.01])
    assert not quiet.may_start(0, 0.2, wall)
    assert not quiet.may_start(0, 0.2, wall + 0.19)
    assert quiet.may_start(0, 0.2, wall + 0.21)


def test_a_simulation_that_slows_down_is_used_again() -> None:
    quiet, wall = paced([0.01] * 20 + [3.0] * 5)
    assert quiet.may_start(0, 0.2, wall)


def test_unannounced_requests_are_noticed_and_forgotten() -> None:
    quiet = foreign()
    assert quiet.shared(0.2 + MEMORY_SECONDS - 0.1)
    assert not quiet.shared(0.2 + MEMORY_SECONDS)


def test_one_look_ahead_of_the_announcement_is_not_foreign() -> None:
    quiet = Quiet(0.1)
    quiet.observe(idle(0), 0, 0.0)
    quiet.observe(idle(0, running=1), 0, 0.1)
    quiet.observe(idle(0, running=1), 1, 0.2)
    quiet.observe(idle(1), 1, 0.3)
    assert not quiet.shared(0.3)


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0.01, 5)), min_size=1, max_size=60))
def test_metrics_that_lag_are_not_foreign(moves: list[tuple[int, float]]) -> None:
    """The engine shows our requests some looks later, but shows them all now and then."""
    quiet, wall, ours, shown = Quiet(0.1), 0.0, 0, 0
    quiet.observe(idle(0), 0, wall)
    for number, (new, passed) in enumerate(moves):
        ours, wall = ours + new, wall + passed
        shown = ours if number % 4 == 0 else min(ours, shown + 1)
        quiet.observe(idle(shown), ours, wall)
        assert not quiet.shared(wall)


def test_requests_that_never_reach_the_engine_do_not_hide_others_for_long() -> None:
    quiet, wall = Quiet(0.1), 0.0
    quiet.observe(idle(0), 0, wall)
    while wall < 2 * REBASE_SECONDS + 1:
        wall += 1.0
        quiet.observe(idle(0), 5, wall)
    for _ in range(2):
        wall += 1.0
        quiet.observe(idle(1), 5, wall)
    assert quiet.shared(wall)


def test_a_restart_counts_from_zero() -> None:
    quiet = Quiet(0.1)
    quiet.observe(idle(1000), 500, 0.0)
    quiet.restarted()
    assert not quiet.may_start(0, 0.1, 0.5)
    for wall in (1.0, 2.0):
        quiet.observe(idle(0), 500, wall)
    assert not quiet.shared(2.0)
    for wall in (3.0, 4.0):
        quiet.observe(idle(2), 501, wall)
    assert quiet.shared(4.0)


def test_a_shared_engine_is_ours_only_while_nothing_runs() -> None:
    quiet = foreign(share=0.5)
    assert quiet.may_start(0, 0.0, 5.0)
    quiet.observe(idle(1, running=1), 0, 5.0)
    assert not quiet.may_start(0, 0.0, 5.0)


def test_work_on_an_engine_of_our_own_is_no_debt() -> None:
    quiet = Quiet(0.1)
    quiet.observe(idle(0), 0, 0.0)
    quiet.spent(500.0, 500.0)
    for wall, finished in ((501.0, 1), (502.0, 1)):
        quiet.observe(idle(finished), 0, wall)
    assert quiet.shared(502.0)
    assert quiet.may_start(0, 0.5, 512.0)


@given(
    st.floats(0, 0.5),
    st.lists(st.tuples(st.floats(0, 20), st.floats(0.01, 3), st.floats(0.01, 3)), max_size=80),
)
def test_the_share_of_a_shared_engine_is_bounded(
    share: float, tries: list[tuple[float, float, float]]
) -> None:
    """However often work is tried, and however long it takes beyond what was foreseen."""
    quiet, wall, used, longest = foreign(share), 0.2, 0.0, 0.0
    finished = 1
    for passed, foreseen, real in tries:
        finished += 1
        for _ in range(2):
            quiet.observe(idle(finished), 0, wall)
        assert quiet.shared(wall)
        if quiet.may_start(0, foreseen, wall):
            wall += real
            quiet.spent(real, wall)
            used, longest = used + real, max(longest, real)
        wall += passed
        bound = share * (wall - 0.2) + LARGEST_CREDIT_SECONDS + longest
        assert used <= bound or used == pytest.approx(bound)


def test_work_costs_more_where_others_may_wait_for_it() -> None:
    quiet = foreign()
    assert quiet.price(0.3) == SHARED_PRICE > quiet.price(0.3 + MEMORY_SECONDS) == OWN_PRICE


def test_of_an_engine_that_counts_no_finished_requests_what_is_there_is_compared() -> None:
    quiet = Quiet(0.1)
    present = Pressure(1, 1, None)
    # Two are known of; then one look alone shows a third, and then two in a row do.
    for wall, pressure, known in ((0.0, present, 2), (0.1, present, 1), (0.2, present, 2)):
        quiet.observe(pressure, known, wall)
        assert not quiet.shared(wall)
    for wall in (0.3, 0.4):
        quiet.observe(present, 1, wall)
    assert quiet.shared(0.4)
    quiet.observe(Pressure(0, 0, None), 0, 1.0)
    assert not quiet.shared(0.4 + MEMORY_SECONDS)
