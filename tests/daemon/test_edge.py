"""The edge profile: no Redis, little memory, and what that leaves."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import httpx

from bench.rig.daemon import DaemonProcess
from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer
from scalesim_client import Publisher
from scalesim_daemon.setting_sources import load_settings
from tests.daemon.live import until

EDGE = Path(__file__).parents[2] / "configs" / "edge.yaml"
AGENTS = 1000
PREFIX_TOKENS = 512
MOST_BYTES = 150 << 20


def test_the_profile_needs_no_redis_and_no_plugin() -> None:
    settings = load_settings(EDGE)
    assert not settings.redis.enabled and settings.broadcast.bind is None
    assert [engine.kind for engine in settings.engines] == ["openai"]


def test_a_thousand_agents_are_little_memory_and_one_process(tmp_path: Path) -> None:
    rng = random.Random(7)

    async def scene(daemon: DaemonProcess) -> None:
        async with httpx.AsyncClient(base_url=daemon.api, timeout=30) as api:
            with Publisher("edge", address=daemon.feed) as publisher:
                publisher.step(0)
                for number in range(AGENTS):
                    tokens = [rng.randrange(10, 32_000) for _ in range(PREFIX_TOKENS)]
                    publisher.bind(f"a{number}", token_ids=tokens, model="base")
                    with publisher.invocation(f"a{number}"):
                        pass
                    publisher.activity(f"a{number}", until=5.0 + number)
                    if number % 100 == 99:
                        assert await asyncio.to_thread(publisher.flush, 10)

                async def heard() -> bool:
                    last = (await api.get(f"/v1/agents/edge/a{AGENTS - 1}")).json()
                    return bool(last.get("invocations") == 1 and last["engines"])

                await until(heard)

                async def prefetched() -> bool:
                    return (await api.get("/v1/report")).json()["prefetches"] > 0

                await until(prefetched)
                assert (await api.get("/ready")).json() == {"ready": True, "reasons": []}
                assert "scalesim_mirror" not in (await api.get("/metrics")).text

    with (
        EmulatorServer(EmulatorConfig(block_size=32)) as engine,
        DaemonProcess(
            tmp_path, engine.url, kind="openai", prompt_slots=4, tagged=True, config=EDGE
        ) as daemon,
    ):
        empty = daemon.resident_bytes()
        asyncio.run(scene(daemon))
        full = daemon.resident_bytes()
        assert len(daemon.pids()) == 1
        print(f"\nresident: {empty / 2**20:.0f} MiB at first, {full / 2**20:.0f} MiB with {AGENTS:,} agents")
        assert full <= MOST_BYTES
    assert "no Redis: pins and the operator's mode are lost" in daemon.log.read_text()
    assert not (tmp_path / "valkey").exists()
