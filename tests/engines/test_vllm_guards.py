"""The calls that are known to end a vLLM 0.32 can't be made through the adapter: each is tried on a real one, and it
serves on."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from bench.rig import vllm
from bench.rig.vllm import VllmServer
from scalesim_adapters.base import (
    Busy,
    CapacityExceeded,
    LoraItem,
    ModelItem,
    PrefixItem,
    Rejected,
    Tier,
    Unsupported,
)
from scalesim_adapters.vllm.adapter import VllmAdapter
from tests.adapters.contract import BLOCK
from tests.engines.vllm_inside import LONG, LONG_ANSWER, SLOTS, ask, drive, lora_items, running

pytestmark = pytest.mark.engine

TRIES = 5


@pytest.fixture(autouse=True)
def serves_on(inside_vllm_server: VllmServer) -> Iterator[None]:
    """The same process answers after each test."""
    pid = inside_vllm_server.pid
    yield
    assert inside_vllm_server.healthy()
    assert inside_vllm_server.pid == pid


def copy_of(item: LoraItem, folder: Path) -> LoraItem:
    """Return a LoRA whose files a test may remove."""
    shutil.copytree(item.path, folder / item.name)
    return LoraItem(item.name, folder / item.name)


def test_a_lora_whose_files_are_gone_is_neither_asked_for_nor_let_go(
    inside_vllm_server: VllmServer, tmp_path: Path
) -> None:
    async def body(adapter: VllmAdapter, client: httpx.AsyncClient) -> None:
        gone, *others = lora_items("gone", 8)
        gone = copy_of(gone, tmp_path)
        await adapter.load(gone, Tier.DEVICE, deadline=LONG)
        shutil.rmtree(gone.path)
        for tier in (Tier.DEVICE, Tier.HOST):
            with pytest.raises(Rejected):
                await adapter.load(gone, tier, deadline=LONG)
        with pytest.raises(Rejected):
            await adapter.load(
                PrefixItem("guard/a", gone.name, tuple(range(BLOCK))), Tier.DEVICE, deadline=LONG
            )
        with pytest.raises(Rejected):
            await adapter.evict(gone, Tier.STORAGE, deadline=LONG)
        # The only copy is the one in memory: whatever is loaded, it stays, and requests for it are served.
        for number, other in enumerate(others):
            await adapter.load(other, (Tier.DEVICE, Tier.HOST)[number % 2], deadline=LONG)
        await ask(client, [1, 2, 3], model=gone.name)

    drive(inside_vllm_server, body)


def test_with_every_slot_pinned_nothing_is_sent_that_needs_one(inside_vllm_server: VllmServer) -> None:
    """The adapter pins nothing; somebody else has, by a route of developer mode."""

    async def body(adapter: VllmAdapter, client: httpx.AsyncClient) -> None:
        *pinned, other = lora_items("pinned", SLOTS + 1)
        for item in (other, *pinned):
            await adapter.load(item, Tier.DEVICE, deadline=LONG)
        numbers = (await client.post("/collective_rpc", json={"method": "scalesim_state"})).json()["results"][
            0
        ]
        numbers = numbers["loras"]["device"]
        for number in numbers:
            await client.post("/collective_rpc", json={"method": "pin_lora", "args": [number]})
        try:
            with pytest.raises(CapacityExceeded):
                await adapter.load(other, Tier.DEVICE, deadline=LONG)
            with pytest.raises(CapacityExceeded):
                await adapter.load(
                    PrefixItem("guard/p", other.name, tuple(range(BLOCK))), Tier.DEVICE, deadline=LONG
                )
            for to in (Tier.HOST, Tier.STORAGE):
                with pytest.raises(Busy):
                    await adapter.evict(pinned[0], to, deadline=LONG)
        finally:
            for number in numbers:
                await client.post("/collective_rpc", json={"method": "remove_lora", "args": [number]})

    drive(inside_vllm_server, body)


def test_no_lora_is_loaded_in_place(inside_vllm_server: VllmServer, tmp_path: Path) -> None:
    """A LoRA that was loaded in place is read again in every step: it would end the engine when its files go."""

    async def body(adapter: VllmAdapter, client: httpx.AsyncClient) -> None:
        (item,) = lora_items("in-place", 1)
        item = copy_of(item, tmp_path)
        for tier in (Tier.DEVICE, Tier.HOST, Tier.DEVICE):
            await adapter.load(item, tier, deadline=LONG)
        shutil.rmtree(item.path)
        await ask(client, [1, 2, 3], model=item.name)

    drive(inside_vllm_server, body)


def test_a_model_neither_sleeps_nor_changes_while_requests_run(inside_vllm_server: VllmServer) -> None:
    async def body(adapter: VllmAdapter, client: httpx.AsyncClient) -> None:
        alone = await ask(client, [21, 22, 23], LONG_ANSWER)

        async def refused(act: Callable[[], Awaitable[object]]) -> bool:
            request = await running(client, [21, 22, 23])
            try:
                await act()
            except Busy as error:
                assert error.retryable
                return True
            finally:
                assert await request == alone
            # On a busy machine the answer may have ended before the engine heard of it.
            await adapter.load(ModelItem("base", vllm.MODELS / "tiny"), Tier.DEVICE, deadline=LONG)
            return False

        for act in (
            partial(adapter.load, ModelItem("base", vllm.MODELS / "tiny-other"), Tier.DEVICE, deadline=LONG),
            partial(adapter.evict, ModelItem("base"), Tier.HOST, deadline=LONG),
            partial(adapter.evict, ModelItem("base"), Tier.STORAGE, deadline=LONG),
        ):
            for _ in range(TRIES):
                if await refused(act):
                    break
            else:
                pytest.fail(f"not refused, {TRIES} times in a row")

    drive(inside_vllm_server, body)


def test_weights_that_do_not_fit_are_refused_before_any_is_read(
    inside_vllm_server: VllmServer, tmp_path: Path
) -> None:
    async def body(adapter: VllmAdapter, client: httpx.AsyncClient) -> None:
        before = await ask(client, [31, 32, 33], cache_salt="before")
        for path in (vllm.MODELS / "mid", tmp_path, Path("relative"), vllm.MODELS / "tiny-loras" / "lora00"):
            with pytest.raises(Rejected):
                await adapter.load(ModelItem("base", path), Tier.DEVICE, deadline=LONG)
        assert await ask(client, [31, 32, 33], cache_salt="after") == before

    drive(inside_vllm_server, body)


def test_nothing_is_loaded_into_a_sleeping_engine(inside_vllm_server: VllmServer) -> None:
    async def body(adapter: VllmAdapter, client: httpx.AsyncClient) -> None:
        (item,) = lora_items("asleep", 1)
        await adapter.load(item, Tier.DEVICE, deadline=LONG)
        for to in (Tier.HOST, Tier.STORAGE):
            for _ in range(2):
                await adapter.evict(ModelItem("base"), to, deadline=LONG)
            assert (await adapter.inventory()).asleep
            for load in (item, PrefixItem("guard/s", "base", tuple(range(BLOCK)))):
                with pytest.raises(Busy):
                    await adapter.load(load, Tier.DEVICE, deadline=LONG)
            told = {"lora_name": item.name, "lora_path": str(item.path), "tier": "device"}
            answer = await client.post("/v1/scalesim/loras/load", json=told)
            assert answer.status_code == 409
            for _ in range(2):
                await adapter.load(ModelItem("base"), Tier.DEVICE, deadline=LONG)
            assert (await adapter.inventory()).asleep is False
            await ask(client, [41, 42, 43], model=item.name)

    drive(inside_vllm_server, body)


def test_pinning_and_other_tiers_are_not_offered(inside_vllm_server: VllmServer) -> None:
    async def body(adapter: VllmAdapter, _: httpx.AsyncClient) -> None:
        (item,) = lora_items("tiers", 1)
        for tier in (Tier.STORAGE, Tier.REMOTE):
            with pytest.raises(Unsupported):
                await adapter.load(item, tier, deadline=LONG)
        for to in (Tier.DEVICE, Tier.REMOTE):
            for any_item in (item, ModelItem("base")):
                with pytest.raises(Unsupported):
                    await adapter.evict(any_item, to, deadline=LONG)
        assert not hasattr(adapter, "pin")

    drive(inside_vllm_server, body)
