"""Mode and pins by operators: in force at once, kept in Redis for the next start, and said where they aren't."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from scalesim_client import Publisher
from scalesim_daemon import app, store
from scalesim_daemon.admin import steering
from scalesim_daemon.intents import Intents
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.settings import RunMode
from tests.daemon.live import daemon, emulator, resident, until
from tests.daemon.mirror_scene import OnServer, Scene
from tests.daemon.still import ask, open_stream, say
from tests.daemon.stores import External

BLOCK = 32
BLOCKS = 4


def tokens(agent: int) -> list[int]:
    return [agent * 1000 + position for position in range(BLOCKS * BLOCK)]


def test_a_pause_holds_at_once_and_over_a_restart(tmp_path: Path) -> None:
    async def scene() -> None:
        with emulator(tmp_path, blocks=64) as engine:
            async with daemon(tmp_path, engine.url) as (sidecar, api):
                paused = await api.post("/v1/pause")
                assert paused.json() == {"mode": "paused", "before": "active", "not_kept": None}
                with Publisher("village", address=sidecar.feed_address) as publisher:
                    publisher.bind("a", token_ids=tokens(1))
                    publisher.activity("a", until=5.0)
                    publisher.step(0.0)

                    async def known() -> bool:
                        return (await api.get("/v1/agents/village/a")).status_code == 200

                    await until(known)
                    assert (await api.put("/v1/pins/village/a", json={"seconds": 900})).status_code == 200
                    cycles = sidecar.counts["cycles"]

                    async def cycled() -> bool:
                        return sidecar.counts["cycles"] > cycles + 3

                    await until(cycled)
                    assert (await api.get("/v1/plan")).json()["engines"][0]["blocks"] == []
                    assert (await api.post("/v1/observe")).json()["mode"] == "observe"

                    async def planned() -> bool:
                        return bool((await api.get("/v1/plan")).json()["engines"][0]["blocks"])

                    await until(planned)
                    assert await resident(api, "village/a") == 0 and not sidecar.decisions
                    assert sidecar.intents is not None
                    assert await sidecar.intents.mode() is RunMode.OBSERVE
                    assert (await api.post("/v1/resume")).json()["before"] == "observe"
                    assert await sidecar.intents.mode() is None, "as configured"

                    async def there() -> bool:
                        return await resident(api, "village/a") == BLOCKS

                    await until(there)
                    assert (await api.post("/v1/pause")).status_code == 200
            async with daemon(tmp_path, engine.url) as (sidecar, api):
                assert (await api.get("/health")).json()["mode"] == "paused"
                (pin,) = (await api.get("/v1/pins")).json()["pins"]
                assert pin["key"] == "village/a" and 800 < pin["until"] - time.time() <= 900
                assert (await api.delete("/v1/pins/village/a")).json()["until"] is None
                assert sidecar.intents is not None and await sidecar.intents.pins() == {}

    asyncio.run(scene())


def test_without_redis_an_operators_word_holds_and_says_that_it_is_not_kept(sidecar: Sidecar) -> None:
    open_stream(sidecar)
    say(sidecar, {"type": "agent.activity_started", "agent": "a", "for": 3})

    async def scene() -> list[httpx.Response]:
        calls = (
            lambda client: client.post("/v1/pause"),
            lambda client: client.put("/v1/pins/sim/a", json={}),
            lambda client: client.delete("/v1/pins/sim/nobody"),
        )
        none = await ask(sidecar, *calls)
        sidecar.intents = Intents("redis://127.0.0.1:1/0")
        away = await ask(sidecar, calls[0])
        await sidecar.intents.close()
        return [*none, *away]

    *none, away = asyncio.run(scene())
    assert [answer.status_code for answer in (*none, away)] == [200] * 4
    assert all("there is no Redis" in answer.json()["not_kept"] for answer in none)
    assert "Redis does not answer" in away.json()["not_kept"]
    assert sidecar.mode is RunMode.PAUSED and sidecar.pinned() == {"sim/a"}


def test_what_redis_did_not_take_is_written_when_it_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "INTENTS_SECONDS", 0.02)

    async def scene() -> None:
        server = External()
        async with daemon(tmp_path, redis={"url": server.url}) as (sidecar, api):
            paused = (await api.post("/v1/pause")).json()
            assert "as soon as Redis answers" in paused["not_kept"]
            await server.start()
            try:
                intents = Intents(server.url)

                async def kept() -> bool:
                    return await intents.mode() is RunMode.PAUSED

                await until(kept)
                assert sidecar.mode is RunMode.PAUSED
                await intents.close()
            finally:
                await server.stop()

    asyncio.run(scene())


def test_what_redis_did_not_tell_at_the_start_is_taken_over_later(
    sidecar: Sidecar, on_server: OnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an operator has said since the start is newer."""
    monkeypatch.setattr(app, "INTENTS_SECONDS", 0.02)

    async def body(scene: Scene) -> None:
        later = time.time() + 1000
        pins = {"pin:sim/a": repr(later), "pin:sim/b": repr(later)}
        await scene.redis.hset("ss:intent", mapping={"mode": "paused", **pins})
        sidecar.intents = intents = Intents(scene.server.url)
        # Said while Redis was away.
        intents._unwritten["pin:sim/a"] = None
        keeping = asyncio.create_task(app._keep_intents(sidecar, intents, known=False))

        async def known() -> bool:
            return sidecar.mode is RunMode.PAUSED

        await until(known)
        assert sidecar.pins == {"sim/b": later}
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await intents.close()

    on_server(body)


def test_an_operators_word_outlives_a_redis_that_loses_everything(
    sidecar: Sidecar, on_server: OnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "INTENTS_SECONDS", 0.02)
    monkeypatch.setattr(store, "HEARTBEAT_SECONDS", 0.02)

    async def body(scene: Scene) -> None:
        sidecar.mirror, sidecar.intents = scene.mirror, Intents(scene.server.url)
        sidecar.pins["sim/a"], sidecar.mode = time.time() + 1000, RunMode.PAUSED
        keeping = asyncio.create_task(app._keep_intents(sidecar, sidecar.intents, known=True))
        await scene.mirror.drained()
        await scene.redis.flushall()

        async def again() -> bool:
            return set(await scene.redis.hkeys("ss:intent")) == {"kept", "mode", "pin:sim/a"}

        await until(again)
        assert await sidecar.intents.pins() == sidecar.pins
        assert await sidecar.intents.mode() is RunMode.PAUSED
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await sidecar.intents.close()

    on_server(body)


def test_what_a_replica_had_not_heard_of_is_written_again(
    sidecar: Sidecar, on_server: OnServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "INTENTS_SECONDS", 0.02)

    async def body(scene: Scene) -> None:
        later = time.time() + 1000
        intents = Intents(scene.server.url)
        sidecar.pins = {"sim/a": later, "sim/b": later, "sim/over": time.time() - 1}
        sidecar.mode = RunMode.PAUSED
        keeping = asyncio.create_task(app._keep_intents(sidecar, intents, known=True))

        async def kept() -> bool:
            fields = set(await scene.redis.hkeys("ss:intent"))
            return {"kept", "mode", "pin:sim/a", "pin:sim/b"} == fields - {"pin:sim/over"}

        await until(kept)
        await scene.redis.hdel("ss:intent", "pin:sim/b", "mode")
        await until(kept)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await intents.close()

    on_server(body)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/pins/sim/nobody", {}, 404),
        ("/v1/pins/sim/a", {"seconds": 0}, 422),
        ("/v1/pins/sim/a", {"seconds": 1e9}, 422),
        ("/v1/pins/sim/a", {"for": 5}, 422),
        ("/v1/pins/sim/b%2F..%0A", {"seconds": 5}, 200),
    ],
)
def test_pins_are_checked(sidecar: Sidecar, path: str, body: dict[str, Any], status: int) -> None:
    open_stream(sidecar)
    for agent in ("a", "b/..\n"):
        say(sidecar, {"type": "agent.activity_started", "agent": agent, "for": 3})
    (answer,) = asyncio.run(ask(sidecar, lambda client: client.put(path, json=body)))
    assert answer.status_code == status


def test_pins_are_bounded_and_those_that_are_over_give_way(
    sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steering, "MOST_PINS", 2)
    open_stream(sidecar)
    for agent in "abc":
        say(sidecar, {"type": "agent.activity_started", "agent": agent, "for": 3})

    def pin(agent: str) -> int:
        return asyncio.run(ask(sidecar, lambda client: client.put(f"/v1/pins/sim/{agent}", json={})))[
            0
        ].status_code

    assert [pin(agent) for agent in "abac"] == [200, 200, 200, 429]
    sidecar.pins["sim/b"] = time.time() - 1
    assert pin("c") == 200 and set(sidecar.pins) == {"sim/a", "sim/c"}
