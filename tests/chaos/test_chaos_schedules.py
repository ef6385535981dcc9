"""A few schedules of faults over a whole daemon, side by side, each short."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.chaos.lanes import play_emulated
from bench.chaos.run import Outcome
from bench.chaos.schedule import DIRECT, EMBEDDED, EXTERNAL, GATEWAY, NEEDS_SHIM, Fault, Kind, Schedule
from bench.chaos.shim import compiled

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(180)]


def schedule(seed: int, store: str, through: str, *kinds: Kind) -> Schedule:
    """One in which these faults happen one after the other, half a second each."""
    able = [kind for kind in kinds if compiled() is not None or kind not in NEEDS_SHIM]
    faults = (Fault(kind, 0.6 * number, 0.5, seed) for number, kind in enumerate(able))
    return Schedule(seed, "emulator", store, through, tuple(faults))


SCHEDULES = (
    schedule(1, EXTERNAL, DIRECT, Kind.REDIS_DEMOTED, Kind.DAEMON_KILLED, Kind.ANSWERS_GARBAGE),
    schedule(2, EMBEDDED, GATEWAY, Kind.CLOCK_BACK, Kind.KV_LOST, Kind.FEED_LOST),
    schedule(3, EXTERNAL, DIRECT, Kind.REDIS_FAILED_OVER, Kind.ENGINE_KILLED),
    schedule(4, EMBEDDED, DIRECT, Kind.FEED_FLOODED, Kind.DISK_SLOW, Kind.DAEMON_FROZEN),
)


@pytest.fixture(scope="module")
def outcomes() -> Iterator[dict[int, Outcome]]:
    yield {outcome.seed: outcome for outcome in play_emulated(SCHEDULES, len(SCHEDULES))}


@pytest.mark.parametrize("played", SCHEDULES, ids=lambda played: ",".join(one.kind for one in played.faults))
def test_nothing_is_lost(played: Schedule, outcomes: dict[int, Outcome]) -> None:
    outcome = outcomes[played.seed]
    assert outcome.clean, outcome
    assert outcome.served > 20 and outcome.looks > 10
    assert outcome.faults[0].felt, outcome.faults
