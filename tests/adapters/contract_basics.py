"""What every adapter must do, whatever its engine tells: the part of the contract that needs no events and no LoRAs.

A test module subclasses `BasicContract` and gives it a `subject` fixture, and a `mortal` one, an engine that may be
killed.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext

import pytest

from scalesim_adapters.base import (
    Capability,
    DeadlineExceeded,
    EngineAdapter,
    EngineUnavailable,
    LoraItem,
    MemoryKind,
    ModelItem,
    NotFound,
    PrefixItem,
    Rejected,
    Tier,
    Unsupported,
)
from tests.adapters.contract_tools import BLOCK, LONG, Subject, cut, eventually, prefixes, run


class BasicContract:
    """Subclass it in a module with the fixtures `subject` and `mortal`."""

    def test_probe_tells_what_the_engine_is_and_lets_us_do(self, subject: Subject) -> None:
        async def body(adapter: EngineAdapter) -> None:
            info = await adapter.probe()
            assert info.engine == subject.engine
            assert info.version.startswith(subject.version)
            assert info.base_models == (subject.base,)
            assert info.block_size == subject.block_size
            assert info.device_blocks == subject.device_blocks
            assert info.max_model_len == subject.max_model_len
            assert info.capabilities[MemoryKind.PREFIX_KV] == subject.prefix
            assert info.capabilities[MemoryKind.LORA] == subject.lora
            assert info.capabilities[MemoryKind.MODEL] == subject.model
            assert tuple(lack.what for lack in info.missing) == subject.missing
            assert (await adapter.probe()).incarnation == info.incarnation

        run(subject, body)

    def test_tokenize_text_and_the_beginning_of_a_conversation(self, subject: Subject) -> None:
        async def body(adapter: EngineAdapter) -> None:
            text = await adapter.tokenize(subject.base, text="the baker walks to the market")
            assert len(text) >= 5
            assert await adapter.tokenize(subject.base, text="the baker walks to the market") == text
            system = {"role": "system", "content": "the baker walks to the market"}
            user = {"role": "user", "content": "hello"}
            head = await adapter.tokenize(subject.base, messages=[system])
            both = await adapter.tokenize(subject.base, messages=[system, user])
            assert both[: len(head)] == head
            assert len(both) > len(head)
            with pytest.raises(NotFound):
                await adapter.tokenize("nobody", text="the baker")

        run(subject, body)

    def test_a_prefix_is_computed_once_and_then_cached(self, subject: Subject) -> None:
        async def body(adapter: EngineAdapter) -> None:
            item = next(prefixes(subject, "cold"))
            cold = await adapter.load(item, Tier.DEVICE, deadline=LONG)
            assert (cold.tokens, cold.cached) == (8 * BLOCK, 0)
            warm = await adapter.load(item, Tier.DEVICE, deadline=LONG)
            assert (warm.tokens, warm.cached) == (8 * BLOCK, 8 * BLOCK)

        run(subject, body)

    def test_a_prefix_grows_chunk_by_chunk(self, subject: Subject) -> None:
        async def body(adapter: EngineAdapter) -> None:
            item = next(prefixes(subject, "grow"))
            outcomes = [
                await adapter.load(cut(item, blocks), Tier.DEVICE, deadline=LONG) for blocks in (2, 5, 8)
            ]
            assert [outcome.cached for outcome in outcomes] == [0, 2 * BLOCK, 5 * BLOCK]

        run(subject, body)

    def test_what_a_probe_has_not_found_is_unsupported(self, subject: Subject) -> None:
        async def body(adapter: EngineAdapter) -> None:
            await adapter.probe()
            item = next(prefixes(subject, "unsupported"))
            lora = LoraItem("contract-lora", subject.loras[0])
            demoting = Capability.DEMOTE
            for supported, call in (
                (demoting in subject.lora, adapter.load(lora, Tier.HOST, deadline=LONG)),
                (demoting in subject.lora, adapter.evict(lora, Tier.HOST, deadline=LONG)),
                (Capability.EVICT in subject.lora, adapter.evict(lora, Tier.STORAGE, deadline=LONG)),
                (demoting in subject.prefix, adapter.evict(item, Tier.HOST, deadline=LONG)),
                (Capability.EVICT in subject.prefix, adapter.evict(item, Tier.STORAGE, deadline=LONG)),
                (False, adapter.load(item, Tier.HOST, deadline=LONG)),
                (
                    Capability.LOAD in subject.model,
                    adapter.load(ModelItem(subject.base), Tier.DEVICE, deadline=LONG),
                ),
                (False, adapter.evict(ModelItem(subject.base), Tier.REMOTE, deadline=LONG)),
            ):
                with nullcontext() if supported else pytest.raises(Unsupported):
                    await call
            with nullcontext() if subject.lora else pytest.raises(Unsupported):
                await adapter.release(lora, deadline=LONG)
            assert (await adapter.inventory()).loras == {}

        run(subject, body)

    def test_bad_prompts_are_refused(self, subject: Subject) -> None:
        async def body(adapter: EngineAdapter) -> None:
            item = next(prefixes(subject, "bad"))
            too_long = PrefixItem(item.agent, subject.base, (10,) * (subject.max_model_len + BLOCK))
            with pytest.raises(Rejected):
                await adapter.load(too_long, Tier.DEVICE, deadline=LONG)
            with pytest.raises(NotFound):
                await adapter.load(
                    PrefixItem(item.agent, "nobody", item.token_ids), Tier.DEVICE, deadline=LONG
                )

        run(subject, body)

    def test_a_deadline_ends_a_call(self, subject: Subject) -> None:
        async def body(adapter: EngineAdapter) -> None:
            item = next(prefixes(subject, "deadline"))
            with pytest.raises(DeadlineExceeded):
                await adapter.load(item, Tier.DEVICE, deadline=0.001)
            assert (await adapter.load(item, Tier.DEVICE, deadline=LONG)).tokens == 8 * BLOCK

        run(subject, body)

    def test_pressure_counts_requests(self, subject: Subject) -> None:
        async def body(adapter: EngineAdapter) -> None:
            await adapter.probe()
            before = await adapter.pressure()
            await adapter.load(next(prefixes(subject, "count")), Tier.DEVICE, deadline=LONG)
            if before is None:
                assert await adapter.pressure() is await adapter.serving() is None
                return

            async def counted() -> bool:
                now = await adapter.pressure()
                assert now is not None
                done = None if before.finished is None else before.finished + 1
                return (now.running, now.waiting, now.finished) == (0, 0, done)

            await eventually(counted)

        run(subject, body)

    def test_an_engine_that_was_killed_is_another_when_it_is_back(self, mortal: Subject) -> None:
        async def body(adapter: EngineAdapter) -> None:
            item = next(prefixes(mortal, "another"))
            first = await adapter.probe()
            await adapter.load(item, Tier.DEVICE, deadline=LONG)
            await asyncio.to_thread(mortal.kill)
            for call in (adapter.load(item, Tier.DEVICE, deadline=LONG), adapter.probe()):
                with pytest.raises(EngineUnavailable):
                    await call
            await asyncio.to_thread(mortal.restart)
            assert (await adapter.probe()).incarnation != first.incarnation
            assert (await adapter.load(item, Tier.DEVICE, deadline=LONG)).cached == 0

        run(mortal, body)
