"""A LoRA that a simulation binds at one daemon is brought by the other, which has the engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from scalesim_client import Publisher
from tests.adapters.emulator_rig import make_lora
from tests.daemon.fleet_rig import member, store
from tests.daemon.live import emulator, until

pytestmark = pytest.mark.fleet


def test_a_lora_that_one_daemon_hears_of_the_other_brings(tmp_path: Path) -> None:
    """Its directory has the same path at both, under what the other allows; what lies elsewhere is not taken."""

    async def scene() -> None:
        shared = make_lora(tmp_path / "shared" / "l1")
        elsewhere = make_lora(tmp_path / "elsewhere" / "l2")
        loras = {"links_dir": str(tmp_path / "links"), "staging_dir": str(tmp_path / "staging")}
        async with store() as redis, member(tmp_path, "a", redis.url) as (a, _):
            with emulator(tmp_path, blocks=64, max_loras=2, max_cpu_loras=4) as engine:
                roots = {**loras, "roots": [str(tmp_path / "shared")]}
                async with member(tmp_path, "b", redis.url, engine.url, loras=roots) as (b, at_b):
                    with Publisher("village", address=a.feed_address) as publisher:
                        publisher.bind("one", lora=str(shared), lora_name="l1")
                        publisher.bind("two", lora=str(elsewhere), lora_name="l2")
                        publisher.activity("one", until=1.0)

                        async def brought() -> bool:
                            view = b.drivers["engine-0"].view
                            return "l1" in view.loras.device and "l2" in b.linking.not_taken

                        await until(brought)
                        agent = (await at_b.get("/v1/agents/village/one")).json()
                        assert agent["items"] == ["lora:l1"]

    asyncio.run(scene())
