"""Our plug-in inside a real SGLang: it evicts by the dues it hears, and as the engine alone where it hears none."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path

import httpx
import pytest

from bench.rig.sglang import SglangServer
from scalesim_adapters.base import Capability, EngineAdapter, LoraItem, PrefixItem, Tier
from tests.adapters.contract import EngineContract, Subject
from tests.adapters.contract_tools import LONG, prefixes, run
from tests.adapters.dues_scene import Broadcaster, payload, until
from tests.engines import sglang_subject
from tests.engines.test_sglang_memory import TOKENS, evicted_by, load

SILENCE_SECONDS = 1.0
SAY_EVERY_SECONDS = 0.2


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plugin")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[SglangServer]:
    """A server with the plug-in switched on, and dues to be heard in its folder."""
    env = {"SCALESIM_DUES": f"ipc://{folder}/dues", "SCALESIM_SILENCE_SECONDS": str(SILENCE_SECONDS)}
    server = sglang_subject.start(folder, env=env)
    yield server
    server.stop()


@pytest.fixture
def subject(server: SglangServer) -> Subject:
    stock = sglang_subject.subject_of(server)
    return replace(stock, prefix=stock.prefix | Capability.HINT)


def follows(server: SglangServer) -> bool:
    """Ask the server whether it evicts by due."""
    state = httpx.get(f"{server.url}/server_info").json()["internal_states"][0]["scalesim"]
    return bool(state["following"])


@contextmanager
def broadcasting(server: SglangServer, folder: Path, dues: dict[str, float]) -> Iterator[None]:
    """Say these dues again and again until the block ends; the server hears them from its beginning on."""
    ending = threading.Event()

    def speak() -> None:
        broadcaster = Broadcaster(f"ipc://{folder}/dues")
        clock = {"step": (0.0, 1.0)}
        while not ending.wait(SAY_EVERY_SECONDS):
            broadcaster.say(payload("snapshot", clock, {agent: ("step", due) for agent, due in dues.items()}))
        broadcaster.close()

    speaker = threading.Thread(target=speak)
    speaker.start()
    try:
        until(lambda: follows(server))
        yield
    finally:
        ending.set()
        speaker.join()


def scene(subject: Subject, name: str) -> tuple[PrefixItem, list[PrefixItem], list[PrefixItem]]:
    """Return one prefix, twelve others, and twelve to be loaded in their place."""
    near, *more = islice(prefixes(subject, name), 25)
    return near, more[:12], more[12:]


def played(subject: Subject, name: str) -> tuple[list[PrefixItem], PrefixItem, list[PrefixItem]]:
    """Load them in this order; return what the last twelve displaced, the first one and the other twelve."""
    near, far, pressure = scene(subject, name)
    gone: list[PrefixItem] = []

    async def body(adapter: EngineAdapter) -> None:
        await load(adapter, near, *far)
        gone.extend(await evicted_by(adapter, pressure, (near, *far)))

    run(subject, body)
    return gone, near, far


@pytest.mark.engine
class TestEviction:
    def test_the_farthest_go_first_and_the_near_one_survives(
        self, server: SglangServer, subject: Subject, folder: Path
    ) -> None:
        near, far, pressure = scene(subject, "by due")
        dues = {near.agent: 1.0} | {item.agent: 5.0 for item in pressure}
        dues |= {item.agent: 10.0 + number for number, item in enumerate(far)}
        with broadcasting(server, folder, dues):
            gone, _, _ = played(subject, "by due")
        assert gone == far[::-1][: len(gone)]
        assert len(gone) > len(far) // 3

    def test_without_a_word_from_the_daemon_the_engine_evicts_as_it_would_alone(
        self, server: SglangServer, subject: Subject, folder: Path
    ) -> None:
        near, far, pressure = scene(subject, "silence")
        with broadcasting(server, folder, {item.agent: 1.0 for item in (near, *far, *pressure)}):
            pass
        until(lambda: not follows(server))
        gone, near, far = played(subject, "silence")
        assert gone == [near, *far][: len(gone)]
        assert len(gone) > len(far) // 3

    def test_the_branches_of_an_agents_older_prompts_go_before_the_prefixes_of_others(
        self, server: SglangServer, subject: Subject, folder: Path
    ) -> None:
        near, far, pressure = scene(subject, "branches")
        older, newer = (
            replace(near, token_ids=near.token_ids[: TOKENS // 2] + other.token_ids[: TOKENS // 2])
            for other in (near, far[0])
        )
        dues = {near.agent: 1.0} | {item.agent: 5.0 for item in (*far, *pressure)}

        async def body(adapter: EngineAdapter) -> None:
            await load(adapter, older, newer, *far)
            await evicted_by(adapter, pressure, tuple(far))
            assert await load(adapter, newer) == [TOKENS]
            assert await load(adapter, older) == [TOKENS // 2]

        with broadcasting(server, folder, dues):
            run(subject, body)

    def test_where_loras_are_is_known(self, subject: Subject) -> None:
        loras = [LoraItem(path.name, path) for path in subject.loras[:3]]

        async def body(adapter: EngineAdapter) -> None:
            for item in loras:
                await adapter.load(item, Tier.DEVICE, deadline=LONG)
            for item in loras:
                await adapter.load(item, Tier.DEVICE, deadline=LONG)
            places = (await adapter.inventory()).lora_places
            assert places is not None
            # One of three slots is the base model's, once it was used.
            assert places.device == tuple(item.name for item in loras[1:])
            assert set(places.host) == {item.name for item in loras}
            await adapter.load(loras[1], Tier.DEVICE, deadline=LONG)
            await adapter.load(loras[0], Tier.DEVICE, deadline=LONG)
            places = (await adapter.inventory()).lora_places
            assert places is not None
            assert places.device == (loras[1].name, loras[0].name)
            for item in loras:
                await adapter.release(item, deadline=LONG)
            after = (await adapter.inventory()).lora_places
            assert after is not None
            assert (after.device, after.host) == ((), ())

        run(subject, body)


@pytest.mark.engine
class TestSglangPlugin(EngineContract):
    """The same contract, with the plug-in hearing nothing."""

    @pytest.fixture
    def mortal(self, server: SglangServer, subject: Subject) -> Subject:
        if not server.healthy():
            server.restart()
        return subject
