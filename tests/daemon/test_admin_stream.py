"""The live stream: a snapshot, then what changes, bounded for each client and ended with the daemon."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from scalesim_adapters.base import MemoryKind
from scalesim_client import Publisher
from scalesim_daemon import paging
from scalesim_daemon.admin import stream
from scalesim_daemon.admin.access import Role, Tokens
from scalesim_daemon.admin.stream import Client, Hub
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.records import Record
from scalesim_daemon.settings import RunMode
from tests.daemon.live import WITHIN, daemon, emulator
from tests.daemon.still import add_engine, ask, open_stream, say, stored, tokens

STEP = Step(Action.LOAD, MemoryKind.PREFIX_KV, "sim/a", 0, 2, 1.0, "due next")


async def heard(client: Client) -> list[tuple[str, Any]]:
    """Return what waits for a client, as names and data."""
    client._waiting.put_nowait(None)
    return [read(message) async for message in client.lines()]


def read(message: bytes) -> tuple[str, Any]:
    name, data = message.decode().strip().split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


def test_a_client_hears_a_snapshot_and_then_changes_alone(sidecar: Sidecar) -> None:
    view = add_engine(sidecar).view
    open_stream(sidecar)
    say(
        sidecar,
        {"type": "memory.bound", "agent": "a", "token_ids": tokens(0, 2)},
        {"type": "agent.activity_started", "agent": "a", "for": 3.0},
        {"type": "agent.registered", "agent": "b"},
    )
    memory = sidecar.population.agents["sim/a"].memory
    assert memory is not None
    view.bound("sim/a", memory)
    sidecar.record(Record(1.0, "one", STEP, "done", 0.1, 8))

    async def scene() -> None:
        hub = Hub(sidecar)
        with hub.joined() as client:
            await hub.look()
            ((name, snapshot),) = await heard(client)
            assert name == "snapshot" and snapshot["mode"] == "active"
            assert snapshot["clocks"] == {"sim": {"kind": "step", "now": 0.0, "pace": 1.0}}
            a, b = sorted(snapshot["agents"], key=lambda agent: str(agent["key"]))
            assert a == {
                "key": "sim/a",
                "due": 3.0,
                "source": "sim",
                "tier": None,
                "resident": 0.0,
                "in_flight": 0,
                "pinned": False,
            }
            assert (b["due"], b["source"], b["resident"]) == (None, None, None)
            await hub.look()
            assert await heard(client) == []
            say(sidecar, {"type": "step.advanced", "now": 1.0})
            view.happened(stored("sim/a", 1))
            sidecar.pins["sim/b"] = time.time() + 60
            sidecar.mode = RunMode.PAUSED
            sidecar.record(Record(2.0, "one", STEP, "failed: no", 0.1, 0))
            await hub.look()
            told = dict(await heard(client))
            assert list(told) == ["mode", "clocks", "agents", "decisions"]
            assert told["mode"] == {"mode": "paused"} and told["clocks"]["sim"]["now"] == 1.0
            a, b = sorted(told["agents"]["changed"], key=lambda agent: str(agent["key"]))
            assert (a["tier"], a["resident"], a["due"]) == ("device", 0.5, 3.0) and b["pinned"]
            assert [one["result"] for one in told["decisions"]] == ["failed: no"]
            say(sidecar, {"type": "agent.released", "agent": "b"})
            say(sidecar, *({"type": "step.advanced", "now": float(now)} for now in range(2, 9)))
            await hub.look()
            told = dict(await heard(client))
            assert told["agents"]["gone"] == ["sim/b"]
            assert [one["due"] for one in told["agents"]["changed"]] == [None], "a is overdue"

    asyncio.run(scene())


def test_a_slow_client_skips_and_hears_a_snapshot_again(sidecar: Sidecar) -> None:
    open_stream(sidecar)
    say(sidecar, {"type": "agent.registered", "agent": "a"})

    async def scene() -> None:
        hub = Hub(sidecar)
        with hub.joined() as slow, hub.joined() as quick:
            ticks = []
            for tick in range(stream.MOST_WAITING + 5):
                say(sidecar, {"type": "step.advanced", "now": float(tick + 1)})
                await hub.look()
                ticks += [name for name, _ in await heard(quick)]
            assert ticks == ["snapshot"] + ["clocks"] * (stream.MOST_WAITING + 4)
            names = [name for name, _ in await heard(slow)]
            assert names[0] == "snapshot" and len(names) < 6

    asyncio.run(scene())


def test_a_stream_ends_when_tokens_change_and_when_the_daemon_stops(sidecar: Sidecar) -> None:
    async def scene() -> None:
        hub = Hub(sidecar)
        with hub.joined() as client:
            await hub.look()
            sidecar.tokens = Tokens({Role.ADMIN: b"other"})
            await hub.look()
            assert [message async for message in client.lines()] == []
        with hub.joined() as client:
            hub.close()
            assert [message async for message in client.lines()] == []
        with pytest.raises(stream.NotRunning):
            hub.check_room()

    asyncio.run(scene())


def test_a_stream_that_has_ended_stays_so_however_slowly_it_is_read(sidecar: Sidecar) -> None:
    open_stream(sidecar)

    async def scene() -> None:
        hub = Hub(sidecar)
        with hub.joined() as client:
            await hub.look()
            sidecar.tokens = Tokens({Role.ADMIN: b"other"})
            for tick in range(stream.MOST_WAITING + 5):
                say(sidecar, {"type": "step.advanced", "now": float(tick + 1)})
                await hub.look()
            assert [message async for message in client.lines()] == []

    asyncio.run(scene())


def test_what_waits_for_a_client_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "MOST_WAITING_BYTES", 10)

    async def scene() -> list[tuple[bool, list[bytes]]]:
        told = []
        for messages in ([b"12345", b"67890"], [b"12345", b"678901"], [b"longer than allowed"]):
            client = Client()
            client.behind = False
            client.tell(messages)
            behind = client.behind
            client._waiting.put_nowait(None)
            told.append((behind, [message async for message in client.lines()]))
        return told

    assert asyncio.run(scene()) == [
        (False, [b"12345", b"67890"]),
        (True, []),
        (False, [b"longer than allowed"]),
    ]


def test_a_look_at_many_agents_lets_others_have_their_turn(sidecar: Sidecar) -> None:
    """Rows, and what each kind of client is told of them: some hundred at a time."""
    count = 8 * paging.CHUNK
    open_stream(sidecar)
    for start in range(0, count, 500):
        agents = range(start, start + 500)
        say(sidecar, *({"type": "agent.registered", "agent": f"a{number}"} for number in agents))

    async def turns_during_a_look(hub: Hub) -> int:
        looking, turns = asyncio.create_task(hub.look()), 0
        while not looking.done():
            turns += 1
            await asyncio.sleep(0)
        return turns

    async def scene() -> None:
        hub = Hub(sidecar)
        with hub.joined() as client:
            assert await turns_during_a_look(hub) >= 16
            ((name, snapshot),) = await heard(client)
            assert (name, len(snapshot["agents"])) == ("snapshot", count)
            for number in range(0, count, 500):
                ids = range(number, number + 500)
                say(sidecar, *({"type": "agent.woken", "agent": f"a{one}"} for one in ids))
            assert await turns_during_a_look(hub) >= 16
            assert len(dict(await heard(client))["agents"]["changed"]) == count

    asyncio.run(scene())


def test_a_silent_stream_shows_that_it_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HEARTBEAT_SECONDS", 0.01)

    async def scene() -> None:
        lines = Client().lines()
        assert [await anext(lines), await anext(lines)] == [b": alive\n\n"] * 2

    asyncio.run(scene())


def test_clients_are_bounded(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> httpx.Response:
        sidecar.hub = Hub(sidecar)
        async with AsyncExitStack() as stack:
            for _ in range(stream.MOST_CLIENTS):
                stack.enter_context(sidecar.hub.joined())
            return (await ask(sidecar, lambda client: client.get("/v1/stream")))[0]

    assert asyncio.run(scene()).status_code == 429
    sidecar.hub = None
    (answer,) = asyncio.run(ask(sidecar, lambda client: client.get("/v1/stream")))
    assert answer.status_code == 503


async def events(response: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    name = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def test_a_whole_daemon_tells_what_it_does_until_it_stops(tmp_path: Path) -> None:
    async def scene() -> None:
        with emulator(tmp_path, blocks=64) as engine:
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(httpx.AsyncClient(timeout=WITHIN))
                async with daemon(tmp_path, engine.url) as (sidecar, api):
                    response = await stack.enter_async_context(
                        client.stream("GET", f"{sidecar.api_url}/v1/stream")
                    )
                    assert response.headers["content-type"].startswith("text/event-stream")
                    told = events(response)
                    assert (await anext(told))[0] == "snapshot"
                    with Publisher("village", address=sidecar.feed_address) as publisher:
                        publisher.bind("a", token_ids=list(range(64)))
                        publisher.activity("a", until=5.0)
                        publisher.step(0.0)
                        seen: dict[str, Any] = {}
                        async with asyncio.timeout(WITHIN):
                            while seen.get("decisions") is None or seen.get("tier") != "device":
                                name, data = await anext(told)
                                seen[name] = data
                                for agent in data["changed"] if name == "agents" else ():
                                    seen["tier"] = agent["tier"]
                    assert seen["decisions"][0]["step"]["key"] == "village/a"
                    assert (await api.post("/v1/pause")).status_code == 200
                    async with asyncio.timeout(WITHIN):
                        while (await anext(told))[0] != "mode":
                            pass
                rest = [name async for name, _ in told]
                assert "snapshot" not in rest, "the stream has ended with the daemon, in order"

    asyncio.run(scene())
