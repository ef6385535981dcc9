"""Publishers of all languages against a running daemon: what they say arrives, whatever happens."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from scalesim_daemon.loop import Sidecar
from tests.client.speakers import ROOT, LossyRoad, built, speaking
from tests.daemon.live import daemon, until

FEED = {"bind": "tcp://127.0.0.1:*"}

# The first test of a language builds it.
pytestmark = [pytest.mark.publishers, pytest.mark.timeout(180)]
every_language = pytest.mark.parametrize("language", ["python", "node", "c", "rust"])


async def dues(api: httpx.AsyncClient) -> dict[str, Any]:
    """Return each agent's name and due."""
    agents = (await api.get("/v1/agents")).json()["agents"]
    answers = {agent["key"]: (await api.get(f"/v1/agents/{agent['key']}")).json() for agent in agents}
    return {key.removeprefix("village/"): answer.get("due", "gone") for key, answer in answers.items()}


def become(api: httpx.AsyncClient, expected: dict[str, Any]) -> Any:
    """Return a wait for dues."""

    found: dict[str, Any] = {}

    async def equal() -> bool:
        found.clear()
        found.update(await dues(api))
        return found == expected

    async def wait() -> None:
        try:
            await until(equal)
        except AssertionError:
            assert found == expected

    return wait()


@every_language
def test_what_is_said_arrives(language: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            daemon(tmp_path, feed=FEED) as (sidecar, api),
            speaking(language, sidecar.feed_address) as speaker,
        ):
            speaker.say(
                "step.advanced now=4",
                "agent.registered agent=Fay",
                "agent.activity_started agent=Ada for=3",
                "agent.activity_started agent=Bob until=9",
                "agent.woken agent=Cyd",
                "plan.declared agents=Dan,Eve at=12",
                "agent.moved agent=Zoë xy=1,2 destination=4,6 speed=1 vision=2 place=park",
                "memory.bound agent=Ada text=persona",
                "invocation.started agent=Bob request=1",
            )
            await speaker.flush()
            await become(
                api, {"Ada": 7.0, "Bob": None, "Cyd": 4.0, "Dan": 12.0, "Eve": 12.0, "Fay": None, "Zoë": None}
            )
            ada, bob = [(await api.get(f"/v1/agents/village/{name}")).json() for name in ("Ada", "Bob")]
            assert (ada["items"], bob["in_flight"]) == (["prefix_kv"], 1)
            speaker.say("invocation.finished agent=Bob request=1", "agent.released agent=Cyd")
            speaker.say("agent.activity_started agent=Bob until=-9", "memory.unbound agent=Ada")
            speaker.say("agent.activity_started agent=Bob for=1", "agent.idled agent=Ada")
            await become(api, {"Ada": None, "Bob": 5.0, "Dan": 12.0, "Eve": 12.0, "Fay": None, "Zoë": None})
            assert (await api.get("/v1/agents/village/Ada")).json()["items"] == []
            assert await speaker.ask("count") == "14 0 1"
            assert sidecar.gate.counts == {"events": 15}

    asyncio.run(scene())


@every_language
def test_a_gap_is_healed_by_a_snapshot(language: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with (
            daemon(tmp_path, feed=FEED) as (sidecar, api),
            LossyRoad(sidecar.feed_address) as road,
            speaking(language, road.address) as speaker,
        ):
            speaker.say("step.advanced now=1", "agent.activity_started agent=Ada until=5")
            await become(api, {"Ada": 5.0})
            road.to_lose = 1
            speaker.say("agent.activity_started agent=Bob until=7")
            await until(lambda: _is(road.lost == 1))
            assert await dues(api) == {"Ada": 5.0}
            speaker.say("agent.activity_started agent=Cyd until=9")
            await become(api, {"Ada": 5.0, "Bob": 7.0, "Cyd": 9.0})
            await until(lambda: _is(not stale(sidecar)))
            assert sidecar.gate.counts["gaps"] == 1

    asyncio.run(scene())


@every_language
def test_a_restarted_daemon_learns_the_newest_state(language: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with daemon(tmp_path, feed=FEED) as (sidecar, api):
            address = sidecar.feed_address
            spoken = speaking(language, address)
            speaker = await spoken.__aenter__()
            speaker.say("step.advanced now=1", "agent.activity_started agent=Ada for=4")
            await become(api, {"Ada": 5.0})
        while int((await speaker.ask("count")).split()[1]) == 0:
            speaker.say("agent.activity_started agent=Ada until=8")
        speaker.say("step.advanced now=3", "agent.activity_started agent=Bob for=4")
        async with daemon(tmp_path, feed={"bind": address}) as (sidecar, api):
            await become(api, {"Ada": 8.0, "Bob": 7.0})
            speaker.say("agent.activity_started agent=Bob until=9")
            await become(api, {"Ada": 8.0, "Bob": 9.0})
            assert not stale(sidecar)
            await spoken.__aexit__(None, None, None)
            await until(lambda: _is(not sidecar.gate.streams()))

    asyncio.run(scene())


@every_language
def test_a_stopped_daemon_never_blocks(language: str, tmp_path: Path) -> None:
    async def scene() -> None:
        async with daemon(tmp_path, feed=FEED) as (sidecar, api):
            address = sidecar.feed_address
            spoken = speaking(language, address)
            speaker = await spoken.__aenter__()
            await speaker.flush()
        events = 20_000
        assert float(await speaker.ask(f"flood {events}")) < 5
        async with daemon(tmp_path, feed={"bind": address}) as (sidecar, api):
            last = f"/v1/agents/village/{(events - 1) % 1000}"

            async def newest() -> bool:
                return (await api.get(last)).json().get("due") == events - 1

            await until(newest)
            assert (await api.get("/v1/agents")).json()["total"] == 1000
            await speaker.flush()
            sent, dropped, _ = map(int, (await speaker.ask("count")).split())
            assert sent + dropped == events
            await spoken.__aexit__(None, None, None)

    asyncio.run(scene())


@pytest.mark.parametrize("language", ["node", "c", "rust"])
def test_the_village_of_each_language_runs(language: str, tmp_path: Path) -> None:
    async def scene() -> None:
        village = built(language).village
        assert village is not None
        async with daemon(tmp_path, feed=FEED) as (sidecar, _):
            process = await asyncio.create_subprocess_exec(
                *village, sidecar.feed_address, "7", cwd=ROOT, stdout=asyncio.subprocess.PIPE
            )
            out, _ = await asyncio.wait_for(process.communicate(), 20)
            assert (process.returncode, out) == (0, b"said 39 events\n")
            assert sidecar.gate.counts == {"events": 41}

    asyncio.run(scene())


def stale(sidecar: Sidecar) -> bool:
    """Return whether the daemon doubts what the publisher said."""
    return any(stale for _, stale in sidecar.gate.streams().values())


async def _is(holds: bool) -> bool:
    return holds
