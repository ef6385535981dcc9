"""The daemon as a process, without Redis, beside a real llama.cpp server: more agents than slots."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from bench.rig.daemon import DaemonProcess
from bench.rig.llamacpp import LlamaServer
from scalesim_client import Publisher
from scalesim_client.events import AgentIdled
from scalesim_daemon.doctor import examine
from tests.daemon.live import report, resident, until
from tests.engines import llamacpp_subject
from tests.engines.small_village import PREFIX, complete, tokens

pytestmark = pytest.mark.engine

HEAD = tokens("what all agents' prompts begin with", 200)
AGENTS = ("a", "b", "c")
SLOTS = 2


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    with llamacpp_subject.start(tmp_path_factory.mktemp("llamacpp"), SLOTS) as running:
        yield running


@pytest.fixture(scope="module")
def one_daemon(server: LlamaServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCALESIM_REDIS__ENABLED", "false")
        daemon = DaemonProcess(tmp_path_factory.mktemp("daemon"), server.url, kind="openai")
    with daemon:
        yield daemon


@pytest.fixture
def daemon(one_daemon: DaemonProcess) -> DaemonProcess:
    one_daemon.start()
    return one_daemon


class Village:
    """Agents of one simulation that call, and what the daemon says of them."""

    def __init__(
        self, name: str, publisher: Publisher, api: httpx.AsyncClient, engine: httpx.AsyncClient
    ) -> None:
        self.name = name
        self.publisher = publisher
        self.api = api
        self.engine = engine

    async def call(self, agent: str) -> int:
        """Let an agent call as it does: it is announced. Return how many tokens were cached."""
        with self.publisher.invocation(agent):
            assert await asyncio.to_thread(self.publisher.flush, 5)
            cached = await self.asks(agent)
        assert await asyncio.to_thread(self.publisher.flush, 5)
        return cached

    async def asks(self, agent: str) -> int:
        """Send an agent's request unannounced; return how many tokens were cached."""
        return await call(self.engine, f"{self.name}/{agent}")

    async def bring(self, *agents: str) -> None:
        """Announce agents until their prefixes are resident, one after the other."""
        for number, agent in enumerate(agents, 1):
            self.publisher.activity(agent, until=float(number))
            await self.there(*agents[:number])

    async def there(self, *agents: str) -> None:
        """Wait until exactly these agents' prefixes are resident."""

        async def known() -> bool:
            held = [agent for agent in AGENTS if await resident(self.api, f"{self.name}/{agent}")]
            return held == sorted(agents)

        await until(known)


def prefix(agent: str) -> list[int]:
    return [*HEAD, *tokens(agent, PREFIX - len(HEAD))]


async def call(engine: httpx.AsyncClient, agent: str) -> int:
    return await complete(engine, agent, [*prefix(agent), 11, 12])


@asynccontextmanager
async def village(name: str, daemon: DaemonProcess, server: LlamaServer) -> AsyncIterator[Village]:
    async with (
        httpx.AsyncClient(base_url=daemon.api, timeout=30) as api,
        httpx.AsyncClient(base_url=server.url, timeout=30) as engine,
    ):
        with Publisher(name, address=daemon.feed) as publisher:
            publisher.step(0)
            for agent in AGENTS:
                publisher.bind(agent, token_ids=prefix(f"{name}/{agent}"), model="base")
            yield Village(name, publisher, api, engine)


def test_the_engine_alone_has_never_the_one_who_comes_next(server: LlamaServer) -> None:
    """Who shares more than a tenth of its prompt with what is in a slot gets that slot: here all get the same."""

    async def scene() -> None:
        server.restart()
        async with httpx.AsyncClient(base_url=server.url, timeout=30) as engine:
            assert [await call(engine, agent) for agent in AGENTS * 3][1:] == [len(HEAD)] * 8

    asyncio.run(scene())


def test_the_doctor_knows_it_and_misses_nothing(server: LlamaServer) -> None:
    found = asyncio.run(examine(server.url))
    assert found.info is not None
    assert (found.info.engine, found.info.prompt_slots, found.info.missing) == ("llama.cpp", SLOTS, ())


def test_whoever_comes_next_is_brought_in(server: LlamaServer, daemon: DaemonProcess) -> None:
    async def scene() -> None:
        async with village("turns", daemon, server) as life:
            found = []
            for now, agent in enumerate(AGENTS * 4):
                life.publisher.step(now)
                for ahead in range(1, len(AGENTS)):
                    life.publisher.activity(AGENTS[(now + ahead) % 3], until=float(now + ahead))
                found.append(await life.call(agent))

                async def brought(key: str = f"turns/{AGENTS[(now + 1) % 3]}") -> bool:
                    return await resident(life.api, key) == 1

                await until(brought)
            assert found[1:] == [PREFIX] * 11
            came = await report(life.api)
            assert came["prefetches_used"] == 11 and came["failed"] == 0

    asyncio.run(scene())


def test_the_farthest_makes_room_not_the_one_that_called_longest_ago(
    server: LlamaServer, daemon: DaemonProcess
) -> None:
    async def scene() -> None:
        async with village("farthest", daemon, server) as life:
            await life.bring("a", "b")
            # The server alone would give c the slot of a, by what they share and by age.
            for agent, due in (("c", 5.0), ("a", 6.0), ("b", 60.0)):
                life.publisher.activity(agent, until=due)
            await life.there("a", "c")
            assert [await life.asks(agent) for agent in ("c", "a")] == [PREFIX] * 2
            assert await life.asks("b") == len(HEAD)

    asyncio.run(scene())


def test_what_strangers_displace_is_not_taken_for_resident(
    server: LlamaServer, daemon: DaemonProcess
) -> None:
    async def scene() -> None:
        async with village("strangers", daemon, server) as life:
            await life.bring("a", "b")
            for agent in ("a", "b"):
                life.publisher.send(AgentIdled(agent=agent))
            await complete(life.engine, "stranger", tokens("a stranger's prompt"))
            await life.there("b")

    asyncio.run(scene())


def test_a_conversation_is_begun_before_its_agent_calls(server: LlamaServer, daemon: DaemonProcess) -> None:
    system = {
        "role": "system",
        "content": "You are a baker. " + "You like the harbour and the old bridge. " * 6,
    }

    async def scene() -> None:
        async with village("talk", daemon, server) as life:
            life.publisher.bind("d", messages=[system], model="base")
            life.publisher.activity("d", until=1.0)

            async def brought() -> bool:
                return await resident(life.api, "talk/d") == 1

            await until(brought)
            body: dict[str, Any] = {"model": "base", "max_tokens": 1}
            body["messages"] = [system, {"role": "user", "content": "Hello"}]
            answer = (await life.engine.post("/v1/chat/completions", json=body)).raise_for_status().json()
            assert answer["timings"]["cache_n"] > 200 > answer["timings"]["prompt_n"]

    asyncio.run(scene())


def test_the_server_dies_and_what_it_had_is_brought_in_again(
    server: LlamaServer, daemon: DaemonProcess
) -> None:
    async def scene() -> None:
        async with village("death", daemon, server) as life:
            await life.bring("c")
            before = await report(life.api)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.restart)

            async def loaded_again() -> bool:
                return (await report(life.api))["prefetched_tokens"] == before["prefetched_tokens"] + PREFIX

            await until(loaded_again)
            assert await life.asks("c") == PREFIX

    asyncio.run(scene())


def test_the_daemon_is_killed_and_the_server_serves_on(server: LlamaServer, daemon: DaemonProcess) -> None:
    async def scene() -> None:
        async with village("alone", daemon, server) as life:
            await life.bring("b")
            daemon.kill()
            assert await life.asks("b") == PREFIX
            assert [await life.asks(agent) for agent in ("a", "c")] != [PREFIX] * 2

    asyncio.run(scene())


def test_a_server_that_empties_idle_slots_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So does one that is started without --parallel: what it takes out of a slot it keeps in host memory."""
    monkeypatch.setenv("SCALESIM_REDIS__ENABLED", "false")
    flags = ["--kv-unified", "--cache-ram", "64"]
    with (
        llamacpp_subject.start(tmp_path, SLOTS, flags) as server,
        DaemonProcess(tmp_path, server.url, kind="openai") as daemon,
    ):

        async def scene() -> None:
            async with village("unified", daemon, server) as life:
                for due, agent in enumerate(AGENTS, 1):
                    life.publisher.activity(agent, until=float(due))

                async def left_alone() -> bool:
                    (state,) = (await life.api.get("/v1/engines")).json()["engines"]
                    remedies = [missing["remedy"] for missing in state["missing"]]
                    return not state["known"] and any("--no-kv-unified" in remedy for remedy in remedies)

                await until(left_alone)
                assert (await report(life.api))["failed"] == 0

        asyncio.run(scene())
