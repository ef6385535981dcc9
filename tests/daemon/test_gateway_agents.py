"""Whose request it is, where it goes, what it is tagged with, and what the estimators hear of it."""

from __future__ import annotations

import asyncio
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from scalesim_adapters.base import MemoryKind
from scalesim_client import Publisher
from scalesim_client.tags import extra_headers, request_tags
from scalesim_daemon.gateway.answers import Refused
from scalesim_daemon.gateway.callers import agent_of
from scalesim_daemon.gateway.notes import Notes
from scalesim_daemon.gateway.requests import Request
from scalesim_daemon.gateway.tags import tagged
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.plan import Action, Step
from scalesim_daemon.planning import EnginePlan
from scalesim_daemon.population import Memory
from scalesim_daemon.recording.format import Request as Recorded
from scalesim_daemon.recording.format import read_header, read_records
from scalesim_daemon.recording.recorder import Recorder
from scalesim_daemon.settings import GatewaySettings, SschedulerSettings
from tests.daemon.gateway_rig import beside, front
from tests.daemon.live import WITHIN, daemon, emulator, until
from tests.daemon.lora_files import make_lora
from tests.daemon.raw_engine import Line, raw_engine
from tests.daemon.still import INFO, add_engine, open_stream, say, still_sidecar, stored

CHAT = "/v1/chat/completions"


def request(fields: dict[str, Any], body: bytes | None = None, **headers: str) -> Request:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request("POST", CHAT, CHAT, pairs, body or json.dumps(fields).encode(), fields)


@pytest.mark.parametrize(
    ("fields", "headers", "agent"),
    [
        ({}, {}, None),
        ({"user": "rosa"}, {}, "town/rosa"),
        ({"user": "village/rosa"}, {}, "village/rosa"),
        ({"user": "rosa", "session_id": "chat-1"}, {}, "town/rosa"),
        ({"session_id": "village/rosa"}, {}, "village/rosa"),
        ({"user": "rosa"}, {"x_agent_id": "ben"}, "town/ben"),
        ({"user": "rosa"}, {"x_simulation": "village"}, "village/rosa"),
        ({"user": "village/a/b"}, {"x_simulation": "village"}, "village/a/b"),
        ({}, {"x_session_id": "rosa"}, "town/rosa"),
        ({}, {"x_agent_id": extra_headers("dörf", "å/1")["X-Agent-Id"]}, "dörf/å/1"),
        (request_tags("village", "rosa")["extra_body"], {}, "village/rosa"),
        ({"user": 7}, {}, None),
        ({"user": ""}, {}, None),
        ({"user": "a" * 300, "session_id": "rosa"}, {}, "town/rosa"),
        ({"metadata": {"id": 7}}, {}, "town/npc-7"),
        ({"metadata": {"id": True}}, {}, None),
        ({"metadata": []}, {}, None),
    ],
)
def test_who_calls(fields: dict[str, Any], headers: dict[str, str], agent: str | None) -> None:
    settings = GatewaySettings(simulation="town", agent="npc-{metadata.id}")
    assert agent_of(request(fields, **headers), settings) == agent


def test_the_papers_simulations_name_their_agents_in_agent_id() -> None:
    gateway, paper = GatewaySettings(), SschedulerSettings(enabled=True)
    assert agent_of(request({"agent_id": 7, "user": "rosa"}), gateway, paper) == "sscheduler/7"
    assert agent_of(request({"user": "rosa"}), gateway, paper) == "default/rosa"
    assert agent_of(request({"agent_id": 7}), gateway, SschedulerSettings()) is None


@pytest.mark.parametrize("headers", [{"x_agent_id": ""}, {"x_simulation": "a/b"}, {"x_agent_id": "a" * 300}])
def test_a_header_for_us_that_cant_be_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(Refused, match="X-Agent-Id, X-Simulation: "):
        agent_of(request({"user": "rosa"}, **headers), GatewaySettings())


def test_tags_are_put_in_front_and_nothing_else_is_touched() -> None:
    body = b' {"a" : 1.0, "user":"r\\u006fsa" }'
    sent = tagged(request({"a": 1.0, "user": "rosa"}, body), 'village/"r"')
    assert sent.body == b'{"session_id": "village/\\"r\\"","a" : 1.0, "user":"r\\u006fsa" }'
    assert json.loads(sent.body) == {"session_id": 'village/"r"', "a": 1.0, "user": "rosa"}
    assert [name for name, _ in sent.headers] == [b"x-request-id"]


def test_what_the_caller_set_stays() -> None:
    own = request({"session_id": "s"}, x_request_id="r")
    assert tagged(own, "village/rosa") == own
    assert tagged(request({"a": 1}, x_session_id="s"), "village/rosa").body == b'{"a": 1}'
    assert tagged(request({}, b"[1]"), "village/rosa").body == b"[1]"


class Door:
    """A behaviour of an engine that answers when it is told to."""

    def __init__(self) -> None:
        self.asked, self.open = asyncio.Event(), asyncio.Event()

    async def __call__(self, line: Line) -> None:
        self.asked.set()
        await self.open.wait()
        await line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


async def answer(line: Line) -> None:
    await line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


def in_flight(sidecar: Sidecar) -> dict[str, int]:
    return {key: agent.in_flight for key, agent in sidecar.population.agents.items()}


def test_a_call_is_noted_from_its_start_to_its_end_however_it_ends(tmp_path: Path) -> None:
    async def scene() -> None:
        door = Door()
        async with raw_engine(door) as engine:
            sidecar = beside(tmp_path, engine.url)
            async with front(sidecar) as client:
                calls = [
                    asyncio.create_task(client.post(CHAT, json={"user": user})) for user in ("rosa", "ben")
                ]
                calls.append(asyncio.create_task(client.post(CHAT, json={})))

                async def all_there() -> bool:
                    return len(engine.requests) == 3

                await until(all_there)
                assert sidecar.strangers or in_flight(sidecar), "no speculative work begins beside them"

                async def all_noted() -> bool:
                    return in_flight(sidecar) == {"default/rosa": 1, "default/ben": 1}

                await until(all_noted)
                assert sidecar.strangers == 1
                assert sidecar.counts["calls_of_agents"] == 2 and sidecar.counts["calls_of_nobody"] == 1
                calls[0].cancel()
                door.open.set()
                assert [(await call).text for call in calls[1:]] == ["ok", "ok"]

                async def all_over() -> bool:
                    return not sidecar.strangers and set(in_flight(sidecar).values()) == {0}

                await until(all_over)
                assert [agent.invocations for agent in sidecar.population.agents.values()] == [1, 1]
                assert any(b'{"session_id": "default/rosa","user"' in sent for sent in engine.requests)
                assert any(sent.endswith(b"\r\n\r\n{}") for sent in engine.requests)

    asyncio.run(scene())


CALL = {"type": "invocation.started", "agent": "rosa"}
DONE = {"type": "invocation.finished", "agent": "rosa"}


def test_a_simulation_that_tells_of_its_calls_is_not_doubled(tmp_path: Path) -> None:
    async def scene() -> None:
        sidecar = still_sidecar(tmp_path)
        notes = Notes(sidecar)
        open_stream(sidecar)
        # It has told of none yet: its word is waited for, and comes.
        note = notes.started("sim/rosa")
        assert in_flight(sidecar) == {}
        say(sidecar, CALL)
        notes.finished(note)
        say(sidecar, DONE)
        notes.finished(notes.started("sim/rosa"))
        assert sidecar.population.agents["sim/rosa"].invocations == 1
        assert set(sidecar.population.sources("sim")) == {"sim"}
        sidecar.library.close()

    asyncio.run(scene())


def test_a_call_tells_of_its_agents_model_unless_that_is_known(tmp_path: Path) -> None:
    async def scene() -> None:
        sidecar = still_sidecar(tmp_path)
        notes = Notes(sidecar)

        def bound(agent: str, model: str | None) -> Memory | None:
            notes.finished(notes.started(f"sim/{agent}", model))
            notes.tell()
            return sidecar.population.agents[f"sim/{agent}"].memory

        assert bound("rosa", None) is None
        assert bound("rosa", "base") == Memory(model="base")
        assert bound("rosa", "lora") == bound("rosa", None) == Memory(model="lora")
        say(sidecar, {"type": "memory.bound", "agent": "ben", "text": "You are Ben."})
        own = sidecar.population.agents["sim/ben"].memory
        assert bound("ben", "base") == own == Memory(text="You are Ben.")
        sidecar.library.close()

    asyncio.run(scene())


def test_a_simulation_that_tells_of_other_things_alone_is_helped_out(tmp_path: Path) -> None:
    async def scene() -> None:
        sidecar = still_sidecar(tmp_path)
        notes = Notes(sidecar)
        open_stream(sidecar)
        say(sidecar, {"type": "agent.registered", "agent": "rosa"})
        short = notes.started("sim/rosa")
        notes.finished(short)
        notes.tell()
        assert sidecar.population.agents["sim/rosa"].invocations == 1
        long = notes.started("sim/rosa")

        async def noted() -> bool:
            return in_flight(sidecar) == {"sim/rosa": 1}

        await until(noted)
        # From now on it does: what was told here in its place is withdrawn.
        say(sidecar, {**CALL, "agent": "ben"})
        notes.finished(notes.started("sim/ben"))
        assert set(sidecar.population.sources("sim")) == {"sim"}
        assert in_flight(sidecar) == {"sim/rosa": 0, "sim/ben": 1}
        notes.finished(long)
        assert in_flight(sidecar) == {"sim/rosa": 0, "sim/ben": 1}
        sidecar.library.close()

    asyncio.run(scene())


def test_a_callers_own_session_is_its_agents_unless_others_share_it(tmp_path: Path) -> None:
    async def scene() -> None:
        async with raw_engine(answer) as engine:
            sidecar = beside(tmp_path, engine.url)
            view = sidecar.drivers["engine-0"].view
            view.probed(INFO)
            async with front(sidecar) as client:
                for user, session in (("rosa", "chat-1"), ("ben", "shared"), ("ada", "shared")):
                    await client.post(CHAT, json={"user": user, "session_id": session})
            view.served.clear()
            for number, session in enumerate(("chat-1", "shared", "default/ben")):
                view.happened(stored(session, 2, first=10 * number))
            assert set(view.served) == {"default/rosa", "shared", "default/ben"}

    asyncio.run(scene())


def test_agents_that_called_longest_ago_are_forgotten(tmp_path: Path) -> None:
    async def scene() -> None:
        sidecar = still_sidecar(tmp_path)
        notes = Notes(sidecar, most_agents=2)
        for key in ("one/a", "two/a", "two/b", "two/c"):
            notes.finished(notes.started(key))
        notes.tell()
        assert set(sidecar.population.agents) == {"two/b", "two/c"}
        assert not sidecar.population.sources("one")
        notes.finished(notes.started("one/a"))
        notes.tell()
        assert set(sidecar.population.agents) == {"one/a", "two/c"}
        sidecar.library.close()

    asyncio.run(scene())


def test_an_agent_stays_where_its_memory_is_and_strangers_go_where_little_is_to_do(tmp_path: Path) -> None:
    async def scene() -> None:
        async with raw_engine(answer) as one, raw_engine(answer) as two:
            sidecar = beside(tmp_path, one.url, two.url)
            views = [driver.view for driver in sidecar.drivers.values()]
            async with front(sidecar) as client:

                async def where(user: str, **fields: Any) -> int:
                    before = len(one.requests)
                    assert (await client.post(CHAT, json={"user": user, **fields})).status_code == 200
                    return 0 if len(one.requests) > before else 1

                homes = {user: await where(user) for user in "abcd"}
                assert sorted(homes.values()) == [0, 0, 1, 1]
                assert {user: await where(user) for user in "dcba"} == homes
                views[1].served["default/seen"] = 1.0
                assert await where("seen") == await where("seen") == 1
                for view in views:
                    view.probed(INFO)
                views[0].loras.registered["lora"] = "/lora"
                assert [await where(user, model="lora") for user in "wxyz"] == [0, 0, 0, 0]
                moved = next(user for user, home in homes.items() if home == 0)
                views[0].unreachable("gone")
                assert await where(moved) == 1

    asyncio.run(scene())


def test_a_request_waits_for_its_lora_and_no_longer(tmp_path: Path) -> None:
    async def scene() -> None:
        async with raw_engine(answer) as engine:
            sidecar = beside(tmp_path, engine.url)
            step = Step(Action.REGISTER, MemoryKind.LORA, "lora", 0, 1, 0.0, "its agent is bound to it")
            sidecar.plans = {"engine-0": EnginePlan((), [step])}
            async with front(sidecar) as client:
                waiting = asyncio.create_task(client.post(CHAT, json={"model": "lora"}))

                async def held() -> bool:
                    return sidecar.counts["calls_held"] == 1

                await until(held)
                assert (await client.post(CHAT, json={"model": "base"})).text == "ok"
                assert len(engine.requests) == 1
                sidecar.plans = {}
                assert (await asyncio.wait_for(waiting, WITHIN)).text == "ok"

    asyncio.run(scene())


def test_a_daemon_learns_from_calls_alone(tmp_path: Path) -> None:
    """Nothing but `user` is known, and of one agent a LoRA, which is called as soon as it is bound."""
    prefix = list(range(1_000, 1_640))

    async def scene() -> None:
        with emulator(tmp_path, max_loras=2) as engine:
            settings = {"enabled": True, "port": 0}
            async with (
                daemon(tmp_path, engine.url, gateway=settings) as (sidecar, api),
                httpx.AsyncClient(base_url=sidecar.gateway_url, timeout=WITHIN) as client,
            ):
                for turn in range(3):
                    prompt = [*prefix, *range(2_000 + 100 * turn, 2_064 + 100 * turn)]
                    body = {"model": "base", "prompt": prompt, "max_tokens": 2, "user": "rosa"}
                    assert (await client.post("/v1/completions", json=body)).status_code == 200

                async def learned() -> bool:
                    seen = (await api.get("/v1/agents/default/rosa")).json()
                    blocks = seen.get("engines", {}).get("engine-0", {}).get("blocks")
                    return (blocks, seen.get("invocations"), seen.get("in_flight")) == (20, 3, 0)

                await until(learned)
                metrics = (await api.get("/metrics")).text
                assert 'scalesim_gateway_calls_total{of="agents"} 3.0' in metrics
                with Publisher("village", address=sidecar.feed_address) as publisher:
                    publisher.bind("ben", lora=str(make_lora(tmp_path / "lora", b"\0")), lora_name="ben")
                    assert await asyncio.to_thread(publisher.flush, 5)

                    async def bound() -> bool:
                        return "village/ben" in sidecar.population.agents

                    await until(bound)
                    body = {"model": "ben", "prompt": [1, 2], "max_tokens": 2, "user": "village/ben"}
                    assert (await client.post("/v1/completions", json=body)).status_code == 200

    asyncio.run(scene())


def test_what_comes_by_the_gateway_is_in_the_recording(tmp_path: Path) -> None:
    async def scene() -> None:
        with emulator(tmp_path) as engine:
            sidecar = beside(tmp_path, engine.url)
            sidecar.recorder = Recorder(tmp_path / "heard.jsonl", content=False, max_bytes=1 << 20)
            with closing(sidecar.recorder):
                async with front(sidecar) as client:
                    said = {"role": "user", "content": "secret"}
                    asked = {"model": "base", "messages": [said], "user": "rosa"}
                    assert (await client.post(CHAT, json=asked)).is_success
                    assert (await client.get("/v1/models")).is_success

    asyncio.run(scene())
    with (tmp_path / "heard.jsonl").open("rb") as file:
        _, offset = read_header(file)
        records = [record for _, record in read_records(file, offset)]
    requests = [(record.agent, record.path) for record in records if isinstance(record, Recorded)]
    assert requests == [("default/rosa", CHAT)]
    assert b"secret" not in (tmp_path / "heard.jsonl").read_bytes()


def test_a_lora_is_being_brought_as_soon_as_it_is_bound(sidecar: Sidecar) -> None:
    """A call that follows its binding at once may come before the next cycle, however long the last one took."""
    add_engine(sidecar)
    open_stream(sidecar)
    say(sidecar, {"type": "memory.bound", "agent": "a", "lora": "/x", "lora_name": "x"})
    assert sidecar.brings_lora("one", "x") and not sidecar.brings_lora("one", "base")
