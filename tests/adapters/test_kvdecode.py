"""Decoding of KV event batches, over bytes recorded from a real vLLM."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from scalesim_adapters.base import Cleared, FeedLost, Removed, ResidencyEvent, Stored, Tier
from scalesim_adapters.kvevents.decode import Decoder

GOLDEN = json.loads((Path(__file__).parent / "golden" / "vllm-0.32.0.json").read_text())
STORED = {
    "type": "BlockStored",
    "block_hashes": [11],
    "parent_block_hash": None,
    "token_ids": [1, 2],
    "block_size": 2,
    "lora_id": None,
    "medium": "GPU",
    "lora_name": None,
}


@pytest.fixture(scope="module")
def batches() -> list[list[ResidencyEvent]]:
    decoder = Decoder()
    return [list(decoder.decode(bytes.fromhex(batch["payload"]))) for batch in GOLDEN["kv_events"]]


def decode(*events: Any, decoder: Decoder | None = None) -> list[ResidencyEvent]:
    return list((decoder or Decoder()).decode(msgspec.msgpack.encode([1.0, events, 0])))


def only(events: list[ResidencyEvent]) -> Stored:
    (event,) = events
    assert isinstance(event, Stored)
    return event


def test_stored_blocks_form_chains(batches: list[list[ResidencyEvent]]) -> None:
    root, child = only(batches[0]), only(batches[1])
    assert root.parent is None
    assert root.token_ids == tuple(range(100, 164))
    assert (root.agent, root.tier, root.block_size) == ("a0", Tier.DEVICE, 32)
    assert child.parent == root.hashes[-1]
    assert child.token_ids == tuple(range(164, 196))


def test_a_second_copy_has_the_same_hash(batches: list[list[ResidencyEvent]]) -> None:
    first, second = only(batches[2]), only(batches[3])
    assert second.hashes == first.hashes[1:]
    assert (first.agent, second.agent) == ("a1", None)


def test_salt_and_lora(batches: list[list[ResidencyEvent]]) -> None:
    assert (only(batches[4]).lora_name, only(batches[4]).cache_salt) == (None, "pepper")
    assert (only(batches[6]).lora_name, only(batches[6]).cache_salt) == ("lora00", None)
    assert (only(batches[7]).lora_name, only(batches[7]).cache_salt) == ("lora00", "pepper")


def test_a_full_report_names_the_session_that_hit(batches: list[list[ResidencyEvent]]) -> None:
    assert only(batches[5]).hashes == only(batches[0]).hashes
    assert only(batches[5]).agent == "a3"


def test_removals_come_before_what_needed_the_room(batches: list[list[ResidencyEvent]]) -> None:
    *removed, stored = batches[8]
    assert removed[0] == Removed(only(batches[1]).hashes, Tier.DEVICE)
    assert all(isinstance(event, Removed) for event in removed)
    assert isinstance(stored, Stored)
    assert stored.agent == "a5"


def test_cleared(batches: list[list[ResidencyEvent]]) -> None:
    cleared, stored = batches[9]
    assert cleared == Cleared()
    assert isinstance(stored, Stored)


FIELDS = ("block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium", "lora_name")


def as_array(event: dict[str, Any]) -> list[Any]:
    """Write an event as vLLM did before events became maps: its type, then its fields in order."""
    return [event["type"], *(event[name] for name in FIELDS if name in event)]


def test_the_older_form_says_the_same_but_for_the_newer_fields(batches: list[list[ResidencyEvent]]) -> None:
    for batch, events in zip(GOLDEN["kv_events"], batches, strict=True):
        newer = msgspec.msgpack.decode(bytes.fromhex(batch["payload"]))[1]
        older = decode(*(as_array(event) for event in newer))
        assert older == [
            replace(event, agent=None, cache_salt=None) if isinstance(event, Stored) else event
            for event in events
        ]


@pytest.mark.parametrize(
    ("medium", "tier"),
    [
        ("GPU", Tier.DEVICE),
        (None, Tier.DEVICE),
        ("CPU", Tier.HOST),
        ("STORAGE", Tier.STORAGE),
        ("x", Tier.REMOTE),
    ],
)
def test_media_become_tiers(medium: str | None, tier: Tier) -> None:
    assert decode({"type": "BlockRemoved", "block_hashes": [1, 2], "medium": medium}) == [
        Removed((1, 2), tier)
    ]


def test_hashes_may_be_bytes() -> None:
    assert only(decode(STORED | {"block_hashes": [b"\x01" * 32]})).hashes == (b"\x01" * 32,)


def test_only_the_group_of_full_attention_counts() -> None:
    decoder = Decoder()
    window = STORED | {"group_idx": 0, "kv_cache_spec_kind": "sliding_window"}
    full = STORED | {"group_idx": 1, "kv_cache_spec_kind": "full_attention", "block_hashes": [12]}
    removed = [{"type": "BlockRemoved", "block_hashes": [n], "medium": "GPU", "group_idx": n} for n in (0, 1)]
    events = decode(window, full, *removed, decoder=decoder)
    assert [type(event) for event in events] == [Stored, Removed]
    assert events[1] == Removed((1,), Tier.DEVICE)


@pytest.mark.parametrize("payload", [b"", b"\xc1", msgspec.msgpack.encode({"type": "BlockStored"})])
def test_unreadable_bytes_are_a_lost_feed(payload: bytes) -> None:
    (event,) = Decoder().decode(payload)
    assert isinstance(event, FeedLost)


def test_an_unknown_event_is_a_lost_feed_and_the_next_batch_is_read() -> None:
    decoder = Decoder()
    (event,) = decode({"type": "BlockMoved"}, decoder=decoder)
    assert isinstance(event, FeedLost)
    assert len(decode(STORED, decoder=decoder)) == 1
