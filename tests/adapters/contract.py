"""What every adapter must do whose engine tells of its blocks: one body of tests, run on the emulator and on real
engines.

A test module subclasses `EngineContract` and gives it a `subject` fixture, and a `mortal` one, an engine that may be
killed. LoRA prompts have at most 64 tokens and never run beside requests for the base model: vLLM's CPU build computes
LoRAs slowly, and mixes up tokens with and without one in the same batch.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from scalesim_adapters.base import (
    Cleared,
    EngineAdapter,
    EngineUnavailable,
    LoraItem,
    NotFound,
    PrefixItem,
    Rejected,
    Stored,
    Tier,
)
from tests.adapters.contract_basics import BasicContract
from tests.adapters.contract_tools import (
    BLOCK,
    LONG,
    VOCABULARY,
    Subject,
    cut,
    eventually,
    listening,
    prefixes,
    run,
)

__all__ = ["BLOCK", "EngineContract", "Subject"]


class EngineContract(BasicContract):
    """Subclass it in a module with the fixtures `subject` and `mortal`."""

    def test_a_salt_keeps_prefixes_apart(self, subject: Subject) -> None:
        async def body(adapter: EngineAdapter) -> None:
            plain = next(prefixes(subject, "salt"))
            salted = PrefixItem(plain.agent, plain.model, plain.token_ids, cache_salt="pepper")
            await adapter.load(plain, Tier.DEVICE, deadline=LONG)
            async with listening(adapter) as listener:
                assert (await adapter.load(salted, Tier.DEVICE, deadline=LONG)).cached == 0
                await listener.until(lambda: len(listener.hashes(plain.agent)) == 16)
                roots = [event for event in listener.stored(plain.agent) if event.parent is None]
                assert [event.cache_salt for event in roots] == [None, "pepper"]
            assert (await adapter.load(salted, Tier.DEVICE, deadline=LONG)).cached == 8 * BLOCK

        run(subject, body)

    def test_the_feed_tells_whose_blocks_were_stored(self, subject: Subject) -> None:
        async def body(adapter: EngineAdapter) -> None:
            item = next(prefixes(subject, "stored"))
            async with listening(adapter) as listener:
                await adapter.load(cut(item, 3), Tier.DEVICE, deadline=LONG)
                await adapter.load(item, Tier.DEVICE, deadline=LONG)
                await listener.stored_all(item)
                events = listener.stored(item.agent)
            chain = [None, *(event.hashes[-1] for event in events)]
            assert [event.parent for event in events] == chain[:-1]
            assert tuple(token for event in events for token in event.token_ids) == item.token_ids
            assert all(len(event.token_ids) == len(event.hashes) * BLOCK for event in events)
            assert {(event.tier, event.block_size) for event in events} == {(Tier.DEVICE, BLOCK)}
            assert {(event.lora_name, event.cache_salt) for event in events} == {(None, None)}

        run(subject, body)

    def test_a_hit_stores_nothing(self, subject: Subject) -> None:
        async def body(adapter: EngineAdapter) -> None:
            first, second, *_ = (item for item, _ in zip(prefixes(subject, "hit"), range(2), strict=False))
            async with listening(adapter) as listener:
                for item in (first, first, second):
                    await adapter.load(item, Tier.DEVICE, deadline=LONG)
                await listener.stored_all(second)
                assert len(listener.hashes(first.agent)) == 8

        run(subject, body)

    def test_a_late_listener_learns_what_an_early_one_knows(self, subject: Subject) -> None:
        async def body(adapter: EngineAdapter) -> None:
            item = next(prefixes(subject, "late"))
            async with listening(adapter) as early:
                await adapter.load(item, Tier.DEVICE, deadline=LONG)
                await early.until(lambda: len(early.hashes(item.agent)) == 8)
                async with listening(adapter) as late:
                    await late.until(lambda: len(late.hashes(item.agent)) == 8)
                    assert late.seen == early.seen
                    assert late.seen[0] == Cleared()

        run(subject, body)

    def test_the_least_recent_goes_first_tail_first_and_a_touch_protects(self, subject: Subject) -> None:
        async def body(adapter: EngineAdapter) -> None:
            count = subject.device_blocks // 8
            source = prefixes(subject, "pressure")
            touched, oldest, *others = [next(source) for _ in range(count)]
            async with listening(adapter) as listener:
                # As many as fit with room for what requests hold besides; then one is touched, and more come.
                for item in (touched, oldest, *others[: count // 2], touched):
                    await adapter.load(item, Tier.DEVICE, deadline=LONG)
                rest = others[count // 2 :] + [next(source) for _ in range(3)]
                for item in rest:
                    await adapter.load(item, Tier.DEVICE, deadline=LONG)
                    await listener.stored_all(item)
                    gone = listener.removed()
                    if set(listener.hashes(oldest.agent)) <= set(gone):
                        break
                ours = listener.hashes(oldest.agent)
                assert [block for block in gone if block in ours] == ours[:: -1 if subject.tail_first else 1]
                assert not set(listener.hashes(touched.agent)) & set(gone)
            assert (await adapter.load(touched, Tier.DEVICE, deadline=LONG)).cached == 8 * BLOCK
            assert (await adapter.load(oldest, Tier.DEVICE, deadline=LONG)).cached == 0

        run(subject, body)

    def test_lora_load_touch_release_and_load_again(self, subject: Subject) -> None:
        async def body(adapter: EngineAdapter) -> None:
            item = LoraItem("contract-lora", subject.loras[0])
            for _ in range(2):
                await adapter.load(item, Tier.DEVICE, deadline=LONG)
                await adapter.load(item, Tier.DEVICE, deadline=LONG)
                assert (await adapter.inventory()).loras == {item.name: str(item.path)}
                await adapter.release(item, deadline=LONG)
                await adapter.release(item, deadline=LONG)
                assert (await adapter.inventory()).loras == {}

        run(subject, body)

    def test_lora_prefix_is_stored_under_its_name(self, subject: Subject) -> None:
        async def body(adapter: EngineAdapter) -> None:
            lora = LoraItem("contract-prefix", subject.loras[1])
            plain = cut(next(prefixes(subject, "lora")), 1)
            item = PrefixItem(plain.agent, lora.name, plain.token_ids)
            with pytest.raises(NotFound):
                await adapter.load(item, Tier.DEVICE, deadline=LONG)
            async with listening(adapter) as listener:
                await adapter.load(lora, Tier.DEVICE, deadline=LONG)
                assert (await adapter.load(item, Tier.DEVICE, deadline=LONG)).cached == 0
                assert (await adapter.load(item, Tier.DEVICE, deadline=LONG)).cached == BLOCK
                await listener.until(lambda: len(listener.hashes(item.agent)) == 1)
                assert listener.stored(item.agent)[0].lora_name == lora.name
            await adapter.release(lora, deadline=LONG)
            assert (await adapter.load(plain, Tier.DEVICE, deadline=LONG)).cached == 0

        run(subject, body)

    def test_lora_that_could_end_the_engine_is_refused_before_any_call(
        self, subject: Subject, tmp_path: Path
    ) -> None:
        async def body(adapter: EngineAdapter) -> None:
            without_weights = tmp_path / "without-weights"
            without_weights.mkdir()
            (without_weights / "adapter_config.json").write_text("{}")
            for path in (tmp_path / "nowhere", tmp_path, without_weights, Path("relative")):
                with pytest.raises(Rejected):
                    await adapter.load(LoraItem("contract-bad", path), Tier.DEVICE, deadline=LONG)
            link = tmp_path / "link"
            link.symlink_to(subject.loras[2])
            item = LoraItem("contract-link", link)
            await adapter.load(item, Tier.DEVICE, deadline=LONG)
            with pytest.raises(Rejected, match="contract-link"):
                await adapter.load(LoraItem(item.name, subject.loras[2]), Tier.DEVICE, deadline=LONG)
            link.unlink()
            for dangling in (item, PrefixItem("contract", item.name, tuple(range(10, 42)))):
                with pytest.raises(Rejected):
                    await adapter.load(dangling, Tier.DEVICE, deadline=LONG)
            await adapter.release(item, deadline=LONG)
            assert (await adapter.inventory()).loras == {}

        run(subject, body)

    def test_a_lora_that_the_engine_cannot_take_is_rejected(self, subject: Subject, tmp_path: Path) -> None:
        async def body(adapter: EngineAdapter) -> None:
            source = subject.loras[0]
            (tmp_path / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
            (tmp_path / "adapter_model.safetensors").write_bytes(b"not weights")
            with pytest.raises(Rejected):
                await adapter.load(LoraItem("contract-broken", tmp_path), Tier.DEVICE, deadline=LONG)
            assert (await adapter.inventory()).loras == {}

        run(subject, body)

    def test_a_cancelled_load_ends_in_the_engine_and_keeps_what_was_done(self, subject: Subject) -> None:
        async def body(adapter: EngineAdapter) -> None:
            head = next(prefixes(subject, "cancel"))
            rng = random.Random("cancel")
            length = (subject.max_model_len // BLOCK - 2) * BLOCK
            tail = tuple(rng.randrange(10, VOCABULARY) for _ in range(length - len(head.token_ids)))
            item = PrefixItem(head.agent, head.model, head.token_ids + tail)
            async with listening(adapter) as listener:
                loading = asyncio.create_task(adapter.load(item, Tier.DEVICE, deadline=LONG))
                await listener.until(lambda: bool(listener.hashes(item.agent)))
                loading.cancel()
                await asyncio.gather(loading, return_exceptions=True)
                assert loading.cancelled()

                async def idle() -> bool:
                    return (pressure := await adapter.pressure()) is not None and pressure.running == 0

                await eventually(idle)
            again = await adapter.load(item, Tier.DEVICE, deadline=LONG)
            assert 0 < again.cached < again.tokens

        run(subject, body)

    def test_an_engine_that_was_killed_is_another_when_it_is_back(self, mortal: Subject) -> None:
        """What the basic contract asks, and more: killed under load it fails the call and nothing else, and it comes
        back cleared. One death shows it all, since a real engine takes long to come back."""

        async def body(adapter: EngineAdapter) -> None:
            item, other = (item for item, _ in zip(prefixes(mortal, "killed"), range(2), strict=False))
            rng = random.Random("under load")
            length = (mortal.max_model_len // BLOCK - 2) * BLOCK
            load = PrefixItem(
                "under-load", mortal.base, tuple(rng.randrange(10, VOCABULARY) for _ in range(length))
            )
            first = await adapter.probe()
            async with listening(adapter) as listener:
                await adapter.load(item, Tier.DEVICE, deadline=LONG)
                await listener.stored_all(item)
                cleared = listener.cleared()
                loading = asyncio.create_task(adapter.load(load, Tier.DEVICE, deadline=LONG))
                await listener.until(lambda: bool(listener.hashes(load.agent)))
                await asyncio.to_thread(mortal.kill)
                with pytest.raises(EngineUnavailable):
                    await loading
                for call in (
                    adapter.load(item, Tier.DEVICE, deadline=LONG),
                    adapter.pressure(),
                    adapter.probe(),
                ):
                    with pytest.raises(EngineUnavailable):
                        await call
                await asyncio.to_thread(mortal.restart)
                assert (await adapter.probe()).incarnation != first.incarnation
                await listener.until(lambda: listener.cleared() == cleared + 1)
                assert (await adapter.load(item, Tier.DEVICE, deadline=LONG)).cached == 0
                await adapter.load(other, Tier.DEVICE, deadline=LONG)
                await listener.stored_all(other)
                at = max(number for number, event in enumerate(listener.seen) if event == Cleared())
                kept = [event for event in listener.seen[at:] if isinstance(event, Stored)]
                assert {event.agent for event in kept} == {item.agent, other.agent}
                assert len(listener.hashes(item.agent)) == 16
            assert (await adapter.load(load, Tier.DEVICE, deadline=LONG)).cached == 0

        run(mortal, body)
