"""How soon one daemon knows what another hears: from an event's admission at A until it is on B's board."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from statistics import median
from time import monotonic

import pytest
from redis.asyncio import Redis

from scalesim_daemon.fleet.hearing import READ_SECONDS
from scalesim_daemon.loop import Sidecar
from tests.daemon.fleet_rig import member, store
from tests.daemon.live import until
from tests.daemon.still import open_stream, say
from tests.daemon.stores import client

pytestmark = pytest.mark.fleet

AGENTS = 2000
WAKES = 200
DAEMONS = 2


async def heard(b: Sidecar, key: str) -> None:
    for _ in range(1_000_000):
        due = b.population.board.get(key)
        if due is not None and due.basis.startswith("woken"):
            return
        await asyncio.sleep(0)
    raise AssertionError("it was never heard")


async def reads_of(redis: Redis) -> int:
    """How often daemons have asked for what others told."""
    return int((await redis.info("commandstats"))["cmdstat_xrange"]["calls"])


async def cpu_of(redis: Redis) -> float:
    """The seconds that the server has taken of a core."""
    told = await redis.info("cpu")
    return float(told["used_cpu_user"]) + float(told["used_cpu_sys"])


async def flood(a: Sidecar, per_second: float) -> None:
    number = 0
    while True:
        for _ in range(int(per_second / 100)):
            number += 1
            fields = {"agent": f"n{number % AGENTS}", "until": float(number % 100)}
            say(a, {"type": "agent.activity_started", **fields})
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("per_second", [0, 2000])
def test_a_wake_reaches_the_other_board_within_tens_of_milliseconds(tmp_path: Path, per_second: int) -> None:
    """Both daemons and the test share one process here, and so one core: apart they take less."""

    async def scene() -> tuple[list[float], float, float]:
        async with (
            store() as redis,
            client(redis.url) as look,
            member(tmp_path, "a", redis.url) as (a, _),
            member(tmp_path, "b", redis.url) as (b, _),
        ):
            open_stream(a)
            for number in range(AGENTS):
                say(a, {"type": "agent.activity_started", "agent": f"n{number}", "until": 9.0})

            async def known() -> bool:
                return len(b.population.agents) == AGENTS

            await until(known)
            flooding = asyncio.create_task(flood(a, per_second))
            seconds = []
            at, reads, cpu = monotonic(), await reads_of(look), await cpu_of(look)
            for number in range(WAKES):
                await asyncio.sleep(0.01)
                began = monotonic()
                say(a, {"type": "agent.woken", "agent": f"w{number}"})
                await heard(b, f"sim/w{number}")
                seconds.append(monotonic() - began)
            flooding.cancel()
            reads, cpu, took = await reads_of(look) - reads, await cpu_of(look) - cpu, monotonic() - at
            return sorted(seconds), reads / took, cpu / took

    seconds, reads, cpu = asyncio.run(scene())
    figures = {
        "events_per_second": per_second,
        "reads_per_second": round(reads),
        "redis_cpu_share": round(cpu, 3),
        "wakes": WAKES,
        "p50_ms": round(1000 * median(seconds), 2),
        "p99_ms": round(1000 * seconds[int(0.99 * WAKES)], 2),
    }
    print(json.dumps(figures))
    assert figures["p50_ms"] < 100
    assert reads <= DAEMONS / READ_SECONDS
