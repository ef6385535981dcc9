"""What a real SGLang evicts: with and without its sessions, priorities and host tier in the adapter's hands."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice

import httpx
import pytest

from bench.rig.process import BASE
from bench.rig.sglang import SglangServer, host_tier_flags, lora_flags
from scalesim_adapters.base import (
    Capability,
    CapacityExceeded,
    EngineAdapter,
    LoraItem,
    MemoryKind,
    PrefixItem,
    Tier,
)
from scalesim_adapters.sglang.adapter import SglangAdapter
from tests.adapters.contract import BLOCK, Subject
from tests.adapters.contract_tools import LONG, cut, listening, prefixes, run
from tests.engines import sglang_subject

pytestmark = pytest.mark.engine

TOKENS = 8 * BLOCK
LOADED_LORAS = 3


@pytest.fixture(scope="module")
def tiered_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SglangServer]:
    """A server with a host tier, eviction by priority, and room for few LoRAs."""
    flags = [*host_tier_flags(), "--radix-eviction-policy", "priority", *lora_flags(loaded=LOADED_LORAS)]
    server = sglang_subject.start(tmp_path_factory.mktemp("tiered"), flags)
    yield server
    server.stop()


def subject(server: SglangServer) -> Subject:
    """Return the server as one whose requests are all tagged."""
    plain = sglang_subject.subject_of(server)
    return Subject(
        **{**vars(plain), "connect": lambda: SglangAdapter(server.url, name="tagged", tagged=True)}
    )


async def load(adapter: EngineAdapter, *items: PrefixItem) -> list[int]:
    """Load items; return how much of each was cached."""
    return [(await adapter.load(item, Tier.DEVICE, deadline=LONG)).cached for item in items]


async def evicted_by(
    adapter: EngineAdapter, pressure: list[PrefixItem], items: tuple[PrefixItem, ...]
) -> list[PrefixItem]:
    """Load what is new; return which of `items` left the device meanwhile, in this order."""
    async with listening(adapter) as listener:
        await listener.until(lambda: all(listener.hashes(item.agent) for item in items))
        before = len(listener.removed())
        assert await load(adapter, *pressure) == [0] * len(pressure)
        await listener.stored_all(pressure[-1])
        gone = listener.removed()[before:]
        roots = {listener.hashes(item.agent)[0]: item for item in items}
    return [roots[block] for block in gone if block in roots]


async def generate(server: SglangServer, item: PrefixItem) -> dict[str, int]:
    """Send an agent's own request; return where its prompt was found."""
    body = {
        "input_ids": [*item.token_ids, 11, 12],
        "sampling_params": {"max_new_tokens": 4, "ignore_eos": True},
        "session_id": item.agent,
    }
    async with httpx.AsyncClient(base_url=server.url, timeout=LONG) as client:
        answer = (await client.post("/generate", json=body)).raise_for_status().json()
    assert len(answer["output_ids"]) == 4
    return dict(answer["meta_info"]["cached_tokens_details"] or {"device": 0, "host": 0})


def test_a_prefetched_agents_next_request_finds_its_tokens_on_the_device(sglang_server: SglangServer) -> None:
    def body_of(item: PrefixItem) -> None:
        async def body(adapter: EngineAdapter) -> None:
            await load(adapter, item)
            assert await generate(sglang_server, item) == {"device": TOKENS, "host": 0}

        run(subject(sglang_server), body)

    body_of(next(prefixes(subject(sglang_server), "prefetched")))


@pytest.mark.parametrize("demotes", [False, True])
def test_near_survives_the_pressure_that_evicts_it_under_lru_where_far_is_demoted(
    sglang_server: SglangServer, demotes: bool
) -> None:
    async def body(adapter: EngineAdapter) -> None:
        info = await adapter.probe()
        assert Capability.DEMOTE in info.capabilities[MemoryKind.PREFIX_KV]
        source = prefixes(subject(sglang_server), f"demoted {demotes}")
        near, *far = islice(source, 13)
        await load(adapter, near, *far)
        for item in far if demotes else ():
            await adapter.evict(item, Tier.HOST, deadline=LONG)
        # As much as the far ones hold, and more than what was there before near.
        gone = await evicted_by(adapter, list(islice(source, 12)), (near, *far))
        assert (near in gone) is not demotes
        assert gone == (far if demotes else [near, *far])[: len(gone)]
        assert len(gone) > len(far) // 3

    run(subject(sglang_server), body)


def test_a_demoted_agent_is_protected_again_by_its_next_request(sglang_server: SglangServer) -> None:
    async def body(adapter: EngineAdapter) -> None:
        source = prefixes(subject(sglang_server), "again")
        back, *far = islice(source, 13)
        await load(adapter, back, *far)
        for item in (back, *far):
            await adapter.evict(item, Tier.HOST, deadline=LONG)
        assert (await generate(sglang_server, back))["device"] == TOKENS
        await load(adapter, *islice(source, 12))
        assert await load(adapter, back) == [TOKENS]

    run(subject(sglang_server), body)


def test_what_left_for_the_host_is_brought_back_by_a_load(tiered_server: SglangServer) -> None:
    async def body(adapter: EngineAdapter) -> None:
        source = prefixes(subject(tiered_server), "host")
        item, *others = islice(source, 25)
        await load(adapter, item)
        await adapter.evict(item, Tier.HOST, deadline=LONG)
        await load(adapter, *others)
        assert await load(adapter, item) == [TOKENS]
        assert await generate(tiered_server, item) == {"device": TOKENS, "host": 0}

    run(subject(tiered_server), body)


def test_what_was_touched_outlives_what_was_used_later(tiered_server: SglangServer) -> None:
    async def body(adapter: EngineAdapter) -> None:
        source = prefixes(subject(tiered_server), "touched")
        touched, *used = islice(source, 25)
        await load(adapter, touched)
        for item in used:
            await generate(tiered_server, item)
        assert (await generate(tiered_server, touched))["device"] == TOKENS

    run(subject(tiered_server), body)


def test_loaded_loras_stay_and_keep_their_cache(tiered_server: SglangServer) -> None:
    where = subject(tiered_server)
    items = [LoraItem(path.name, path) for path in where.loras[: LOADED_LORAS + 1]]

    async def body(adapter: EngineAdapter) -> None:
        for lora in items[:LOADED_LORAS]:
            await adapter.load(lora, Tier.DEVICE, deadline=LONG)
        plain = cut(next(prefixes(where, "loras")), 1)
        prefix = PrefixItem(plain.agent, items[0].name, plain.token_ids)
        assert await load(adapter, prefix, prefix) == [0, BLOCK]
        with pytest.raises(CapacityExceeded, match=f"--max-loaded-loras {LOADED_LORAS + 1}"):
            await adapter.load(items[-1], Tier.DEVICE, deadline=LONG)
        for lora in items[:LOADED_LORAS]:
            await adapter.load(lora, Tier.DEVICE, deadline=LONG)
        assert set((await adapter.inventory()).loras) == {lora.name for lora in items[:LOADED_LORAS]}
        assert await load(adapter, prefix) == [BLOCK]
        for lora in items[:LOADED_LORAS]:
            await adapter.release(lora, deadline=LONG)

    run(where, body)


def test_unannounced_requests_are_served_beside_a_tagged_adapter(sglang_server: SglangServer) -> None:
    async def body(adapter: EngineAdapter) -> None:
        items = list(islice(prefixes(subject(sglang_server), "beside"), 4))
        loading = asyncio.gather(*(adapter.load(item, Tier.DEVICE, deadline=LONG) for item in items))
        async with httpx.AsyncClient(base_url=sglang_server.url, timeout=LONG) as client:
            chat = {"model": BASE, "prompt": "the baker walks", "max_tokens": 4, "temperature": 0}
            assert (await client.post("/v1/completions", json=chat)).status_code == 200
        assert {outcome.tokens for outcome in await loading} == {TOKENS}

    run(subject(sglang_server), body)
