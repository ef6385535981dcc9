"""Two emulated engines that share a memory for one model: the nearest agents' model is awake."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import httpx

from scalesim_adapters.base import Capability, Inventory, MemoryKind
from scalesim_client import Publisher
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.population import Population
from scalesim_daemon.snapshot import Ranking, model_cache
from scalesim_daemon.view import EngineView
from tests.daemon.live import daemon, emulator, until
from tests.daemon.still import INFO


async def asleep(url: str) -> bool:
    async with httpx.AsyncClient(base_url=url) as client:
        return bool((await client.get("/is_sleeping")).json()["is_sleeping"])


def moves(sidecar: Sidecar) -> list[tuple[str, str]]:
    steps = [record.step for record in sidecar.decisions]
    return [(step.key, str(step.action)) for step in steps if step.kind is MemoryKind.MODEL]


def test_the_nearest_agents_model_is_awake(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("north", "south")]
    for folder in folders:
        folder.mkdir()

    async def scene(north: str, south: str) -> None:
        engines = [
            {"url": url, "name": name, "model_bytes": "4GiB"}
            for name, url in (("north", north), ("south", south))
        ]

        async with daemon(tmp_path, engines=engines, models={"budget_bytes": "6GiB"}) as (sidecar, _):

            async def only(awake: str, other: str) -> bool:
                """Asked in this order: an engine is awake before the step that woke it has ended and is recorded."""
                if await asleep(awake) or not await asleep(other):
                    return False
                return not any(driver.in_flight for driver in sidecar.drivers.values())

            with Publisher("town", address=sidecar.feed_address) as publisher:
                publisher.step(0)
                for agent, due in (("north", 1), ("south", 2)):
                    publisher.bind(agent, token_ids=list(range(64)), model=agent)
                    publisher.activity(agent, until=due)
                await until(lambda: only(north, south))
                # Before the first event, either of the two may have been put to sleep for the budget.
                before = len(moves(sidecar))
                publisher.activity("north", until=500)
                await until(lambda: only(south, north))
                # A request that is announced wakes the model it is for, and waits until then.
                async with httpx.AsyncClient(base_url=north, timeout=20) as client:
                    with publisher.invocation("north"):
                        body = {"model": "north", "prompt": [1, 2, 3], "max_tokens": 1}
                        assert (await client.post("/v1/completions", json=body)).status_code == 200
                        assert await asleep(south) and not await asleep(north)
                        await until(lambda: only(north, south))
                assert moves(sidecar)[before:][:4] == [
                    *(("north", "sleep"), ("south", "wake")),
                    *(("south", "sleep"), ("north", "wake")),
                ]
                await until(lambda: only(south, north))

    with (
        emulator(folders[0], model="north", dev_mode=True) as north,
        emulator(folders[1], model="south", dev_mode=True) as south,
    ):
        asyncio.run(scene(north.url, south.url))


def test_what_does_not_answer_is_taken_to_be_awake_and_to_stay_so() -> None:
    def view(name: str, *, asleep: bool, away: bool = False) -> EngineView:
        seen = EngineView(name, quiet_share=0.0)
        seen.model_bytes = 4
        seen.probed(replace(INFO, capabilities=INFO.capabilities | {MemoryKind.MODEL: Capability.SLEEP}))
        seen.told(Inventory(asleep=asleep))
        if away:
            seen.unreachable("a test")
        return seen

    views = {
        "a": view("a", asleep=True),
        "b": view("b", asleep=True, away=True),
        "c": view("c", asleep=False),
    }
    views["d"] = EngineView("d", quiet_share=0.0)
    population = Population()
    cache = model_cache(views, population, Ranking(population, (), 0.0), lambda *_: True, 8)
    assert [(one.engine, one.awake, one.held) for one in cache.models] == [
        *(("a", False, False), ("b", True, True), ("c", True, False)),
    ]
