"""One scale for items of any size: how many bytes for how long, per second that they save."""

import math

from scalesim_daemon.worth import rent


def test_rent_is_the_order_of_distances_where_items_are_alike() -> None:
    distances = [3.0, 0.0, 7.5, 1.0, math.inf]
    assert sorted(distances) == sorted(distances, key=lambda far: rent(far, 4096, 0.2))


def test_what_saves_nothing_is_worth_no_memory() -> None:
    assert rent(1.0, 10, 0.0) == rent(math.inf, 10, 1.0) == math.inf
    assert rent(0.0, 10, 1.0) == 0.0


def test_small_items_and_dear_ones_are_kept_longer() -> None:
    assert rent(2.0, 100, 1.0) < rent(2.0, 200, 1.0)
    assert rent(2.0, 100, 1.0) < rent(2.0, 100, 0.5)
    # Twice as far is worth keeping as long as it saves more than twice as much per byte.
    assert rent(4.0, 100, 2.1) < rent(2.0, 100, 1.0) < rent(4.0, 100, 1.9)
