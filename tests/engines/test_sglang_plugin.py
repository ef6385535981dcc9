"""Our plug-in inside a real SGLang: it evicts by the dues it hears, and as the engine alone where it hears none."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import islice

import pytest

from bench.rig.sglang import SglangServer
from scalesim_adapters.base import EngineAdapter, LoraItem, PrefixItem, Tier
from tests.adapters.contract import EngineContract, Subject
from tests.adapters.contract_tools import LONG, prefixes, run
from tests.adapters.dues_scene import until
from tests.engines import sglang_inside
from tests.engines.sglang_inside import SILENCE_SECONDS, broadcasting, follows
from tests.engines.test_sglang_memory import TOKENS, evicted_by, load

# How long a busy machine may take to say how the server evicts.
ASKING_SECONDS = 2.0


@pytest.fixture
def server(inside_sglang_server: SglangServer) -> SglangServer:
    return inside_sglang_server


@pytest.fixture
def subject(server: SglangServer) -> Subject:
    return sglang_inside.subject_of(server)


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
        self, server: SglangServer, subject: Subject
    ) -> None:
        near, far, pressure = scene(subject, "by due")
        dues = {near.agent: 1.0} | {item.agent: 5.0 for item in pressure}
        dues |= {item.agent: 10.0 + number for number, item in enumerate(far)}
        with broadcasting(server, dues):
            gone, _, _ = played(subject, "by due")
        assert gone == far[::-1][: len(gone)]
        assert len(gone) > len(far) // 3

    def test_without_a_word_from_the_daemon_the_engine_evicts_as_it_would_alone(
        self, server: SglangServer, subject: Subject
    ) -> None:
        near, far, pressure = scene(subject, "silence")
        with broadcasting(server, {item.agent: 1.0 for item in (near, *far, *pressure)}):
            pass
        silent = time.monotonic()
        until(lambda: not follows(server))
        assert time.monotonic() - silent < SILENCE_SECONDS + ASKING_SECONDS
        gone, near, far = played(subject, "silence")
        assert gone == [near, *far][: len(gone)]
        assert len(gone) > len(far) // 3

    def test_the_branches_of_an_agents_older_prompts_go_before_the_prefixes_of_others(
        self, server: SglangServer, subject: Subject
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

        with broadcasting(server, dues):
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
    def mortal(self, subject: Subject) -> Subject:
        return subject
