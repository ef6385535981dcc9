"""A replayed recording leaves a daemon as the recorded one was left, by either door, however often it is sent."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from scalesim_client import Publisher
from scalesim_daemon.recording import targets
from scalesim_daemon.recording.format import Message, Record, Request, read_header, read_records
from scalesim_daemon.recording.replay import Tally, replay
from scalesim_daemon.recording.targets import OWN_SOURCE, ApiTarget, EngineTarget, FeedTarget, Unreachable
from tests.daemon.live import daemon, emulator, until
from tests.daemon.recordings import CHAT, DISTANCES, VILLAGE, distances, opened, played
from tests.daemon.recordings import until as acts_until


@pytest.mark.parametrize("door", ["feed", "api"])
def test_what_was_recorded_holds_again_and_as_often_as_it_is_sent(tmp_path: Path, door: str) -> None:
    async def scene() -> None:
        async with daemon(tmp_path) as (sidecar, api):
            for _ in range(3):
                target = FeedTarget(sidecar.feed_address) if door == "feed" else ApiTarget(sidecar.api_url)
                tally = await played(VILLAGE, target)
                assert (tally.messages, tally.events, tally.requests) == (6, 9, 1)
                assert tally.sources == {"village-1", "anonymous", "poster/1"}
                assert tally.end == "closed"
                assert distances(await api.get("/v1/agents")) == DISTANCES
                # A bad event is sent as it came; who asks is told.
                refused = [why for why in target.refused if "speed" in why]
                assert len(refused) == (1 if door == "api" else 0)
            assert sidecar.gate.counts["fenced"] == 0
            assert sidecar.gate.counts["duplicates"] == 0

            async def gone() -> bool:
                return OWN_SOURCE not in sidecar.gate.streams()

            await until(gone)

    asyncio.run(scene())


def test_from_the_simulation_to_the_file_to_another_daemon(tmp_path: Path) -> None:
    file = tmp_path / "heard.jsonl"
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir(), other.mkdir()

    async def scene() -> None:
        async with daemon(one, record={"path": str(file)}) as (sidecar, api):
            with Publisher("village", address=sidecar.feed_address) as publisher:
                publisher.step(1.0)
                publisher.activity("rosa", for_=3.0)
                publisher.bind("rosa", text="who rosa is")
                publisher.moved("ben", xy=(0, 0), destination=(8, 0), speed=2, vision=1)
                publisher.step(2.0)
                body = {"agent_data": {"7": 2}, "timestep_cnt": 1}
                assert (await api.post("/v1/update", json=body)).status_code == 200

                async def heard() -> bool:
                    return distances(await api.get("/v1/agents")).get("village/rosa") == 2.0

                await until(heard)
                before = (await api.get("/v1/agents")).json()
        async with daemon(other) as (sidecar, api):
            with file.open("rb") as opened_file:
                header, offset = read_header(opened_file)
                await replay(
                    read_records(opened_file, offset),
                    offset=offset,
                    content=header.content,
                    speed=0.0,
                    target=FeedTarget(sidecar.feed_address),
                    engine=None,
                    tally=Tally(),
                )
            # The publisher closed its stream at the end: what it said of `village` is gone there, too.
            assert distances(await api.get("/v1/agents")) == {"sscheduler/7": 2.0}
            with file.open("rb") as opened_file:
                _, offset = read_header(opened_file)
                records = [record for _, record in read_records(opened_file, offset)]
            open_ended = [
                record
                for record in records
                if not (isinstance(record, Message) and record.events[0]["type"] == "stream.closed")
            ]
            await played(open_ended, FeedTarget(sidecar.feed_address), content=False)
            after = (await api.get("/v1/agents")).json()
            for agents in (before["agents"], after["agents"]):
                for agent in agents:
                    del agent["seconds"]
            assert after == before

    asyncio.run(scene())


def test_the_pace_is_the_recorded_one_or_a_multiple(tmp_path: Path) -> None:
    records: list[Record] = [Message(3600.0, "s", None, [acts_until("a", 3)])]

    async def scene() -> None:
        async with daemon(tmp_path) as (sidecar, _):
            for speed, least in ((36_000.0, 0.1), (0.0, 0.0)):
                began = time.monotonic()
                tally = await played(records, ApiTarget(sidecar.api_url), speed=speed)
                assert time.monotonic() - began >= tally.seconds >= least

    asyncio.run(scene())


def test_incarnations_keep_their_order_so_that_fenced_stays_fenced(tmp_path: Path) -> None:
    records: list[Record] = [
        Message(0.0, "s", 0, [opened("s", 10**13 + 5), acts_until("a", 3)]),
        Message(0.0, "s", 0, [opened("s", 10**13 + 4), acts_until("b", 3)]),
    ]

    async def scene() -> None:
        async with daemon(tmp_path) as (sidecar, api):
            target = FeedTarget(sidecar.feed_address)
            await played(records, target)
            assert distances(await api.get("/v1/agents")) == {"village/a": 3.0}
            assert len(target.refused) == 1 and "older" in target.refused[0]

    asyncio.run(scene())


def test_a_source_that_spoke_before_it_opened_is_the_same_again(tmp_path: Path) -> None:
    records: list[Record] = [
        Message(0.0, "s", None, [{"type": "agent.woken", "agent": "a"}]),
        Message(0.0, "s", None, [opened("s", 5)]),
        Message(0.0, "s", None, [acts_until("a", 3)]),
    ]

    async def scene() -> None:
        async with daemon(tmp_path) as (sidecar, api):
            await played(records, ApiTarget(sidecar.api_url))
            assert distances(await api.get("/v1/agents")) == {"village/a": 3.0}

    asyncio.run(scene())


@pytest.mark.parametrize(("status", "said"), [(200, {"ok": 1}), (404, []), (500, {"error": "no"})])
def test_what_answers_json_and_is_no_daemon_is_named(status: int, said: Any) -> None:
    async def scene() -> None:
        target = ApiTarget("http://127.0.0.1:1")
        answer = httpx.MockTransport(lambda _: httpx.Response(status, json=said))
        target._client = httpx.AsyncClient(base_url="http://elsewhere", transport=answer)
        with pytest.raises(Unreachable, match="is no scalesimd of this version"):
            await played([Message(0.0, "s", None, [acts_until("a", 3)])], target)

    asyncio.run(scene())


@pytest.mark.parametrize("address", ["ipc:///nowhere/feed", "tcp://127.0.0.1:9", "udp://x", "feed"])
def test_an_address_that_nobody_answers_at_is_named(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(targets, "ANSWER_SECONDS", 0.1)
    with pytest.raises(Unreachable, match=address):
        asyncio.run(played(VILLAGE, FeedTarget(address)))


def test_an_api_that_nobody_answers_at_is_named() -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        asyncio.run(played(VILLAGE, ApiTarget("http://127.0.0.1:9")))


def test_requests_go_to_the_engine_with_their_agents_tag(tmp_path: Path) -> None:
    said = {"messages": {"messages": [["system", 900], ["user", 30]]}}
    requests: list[Record] = [
        *[Request(0.0, "village/rosa", CHAT, {"model": "base", "max_tokens": 2, "withheld": said})] * 2,
        Request(
            0.0, None, "/v1/completions", {"model": "base", "prompt": "hi", "max_tokens": 1, "stream": True}
        ),
        Request(0.0, "village/ben", CHAT, {"model": "nobody", "messages": []}),
    ]

    async def scene() -> None:
        with emulator(tmp_path, blocks=64) as one:
            async with daemon(tmp_path, one.url) as (sidecar, api):

                async def ready() -> bool:
                    return (await api.get("/ready")).status_code == 200

                await until(ready)
                target = FeedTarget(sidecar.feed_address)
                async with EngineTarget(one.url) as engine:
                    tally = await played(requests, target, engine=engine, content=False)
                assert (tally.requests, engine.sent) == (4, 4)
                (failed,) = engine.failed
                assert failed.startswith(f"{CHAT}: 404")

                # The engine names the session, and what an agent's requests have in common is its prefix.
                async def seen() -> bool:
                    return (await api.get("/v1/agents/village/rosa")).status_code == 200

                await until(seen)

    asyncio.run(scene())


def test_stand_ins_are_bound_where_prompts_were_left_out(tmp_path: Path) -> None:
    bound: dict[str, Any] = {"type": "memory.bound", "agent": "a", "withheld": {"token_ids": {"tokens": 64}}}
    whole = {"type": "state.snapshot", "part": 0, "of": 1, "events": [json.loads(json.dumps(bound))]}
    records: list[Record] = [
        Message(0.0, "s", 0, [opened("s"), bound]),
        Message(0.0, "t", 0, [opened("t", simulation="other"), whole]),
    ]

    async def scene() -> None:
        async with daemon(tmp_path) as (sidecar, _):
            await played(records, FeedTarget(sidecar.feed_address), content=False)
            for key in ("village/a", "other/a"):
                memory = sidecar.population.agents[key].memory
                assert memory is not None and memory.token_ids is not None and len(memory.token_ids) == 64

    asyncio.run(scene())
