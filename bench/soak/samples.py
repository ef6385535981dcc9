"""What is noted of the daemon every few seconds, as anybody could who watches it: /proc, its metrics, and its Redis."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families
from redis.asyncio import Redis

from bench.soak.rig import Speaker, WatchedDaemon

REFUSALS = "scalesim_refused_total"
PREFETCHES = "scalesim_prefetches_total"
EVICTIONS = "scalesim_evictions_total"
HEARD = "scalesim_events_total"
LAG = "scalesim_mirror_lag_p99_seconds"
AGENTS = "scalesim_agents"
# What would have been lost or ignored on its way in, and is nowhere in what was sent.
NOT_TAKEN = (REFUSALS, "scalesim_gaps_total", "scalesim_duplicates_total")


class Sample(msgspec.Struct, frozen=True):
    """One look, `seconds` after the first event. Of the daemon's process: resident bytes, open files, what its objects
    take in blocks of Python's allocator, asyncio's tasks, and the longest cycle since the look before. Of Redis: its
    `used_memory` and how many keys there are. Of the mirror: the 99th percentile of its lag. Beside these the counts of
    who speaks, and those of the daemon's metrics, summed over engines."""

    seconds: float
    rss: int
    files: int
    blocks: int
    tasks: int
    longest_cycle: float
    redis_bytes: int
    redis_keys: int
    mirror_lag: float
    agents: int
    alive: int
    gone: int
    left: int
    streams: int
    sent: int
    heard: int
    not_taken: int
    prefetches: int
    evictions: int


class Sampler:
    """Looks at one daemon."""

    def __init__(self, daemon: WatchedDaemon, speaker: Speaker) -> None:
        self._daemon = daemon
        self._speaker = speaker
        self._api = httpx.AsyncClient(base_url=daemon.api, timeout=30)
        self._redis: Redis = Redis.from_url(f"unix://{daemon.valkey}")
        self._began = monotonic()

    async def look(self) -> Sample:
        """Return what is to be seen now."""
        told, counts = await self._daemon.ask(), await self.counts()
        memory, keys = await self._redis.info("memory"), await self._redis.dbsize()
        process, said = Path(f"/proc/{self._daemon.pid}"), self._speaker.said
        return Sample(
            seconds=monotonic() - self._began,
            rss=_resident(process),
            files=len(os.listdir(process / "fd")),  # noqa: PTH208  # names alone
            blocks=int(told["blocks"]),
            tasks=int(told["tasks"]),
            longest_cycle=told["longest_cycle"],
            redis_bytes=int(memory["used_memory"]),
            redis_keys=keys,
            mirror_lag=counts[LAG],
            agents=int(counts[AGENTS]),
            alive=said.agents,
            gone=said.gone,
            left=said.left,
            streams=said.streams,
            sent=said.sent,
            heard=int(counts[HEARD]),
            not_taken=sum(int(counts[name]) for name in NOT_TAKEN),
            prefetches=int(counts[PREFETCHES]),
            evictions=int(counts[EVICTIONS]),
        )

    async def counts(self) -> dict[str, float]:
        """Return the daemon's metrics, each summed over its labels."""
        text = (await self._api.get("/metrics")).raise_for_status().text
        sums: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
        return sums

    async def close(self) -> None:
        """Close the connections."""
        await self._api.aclose()
        await self._redis.aclose()


def _resident(process: Path) -> int:
    """Return a process's resident memory: VmRSS of its status, in KiB (proc(5))."""
    lines = (process / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) * 1024
