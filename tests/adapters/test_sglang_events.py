"""Decoding of SGLang's KV events, over what a real server with a host tier replayed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scalesim_adapters.base import Cleared, Removed, ResidencyEvent, Stored, Tier
from scalesim_adapters.kvevents.decode import Decoder

GOLDEN = json.loads((Path(__file__).parent / "golden" / "sglang-0.5.23.json").read_text())


@pytest.fixture(scope="module")
def events() -> list[ResidencyEvent]:
    decoder = Decoder()
    return [
        event
        for *_, payload in GOLDEN["kv_replay"]["messages"][:-1]
        for event in decoder.decode(bytes.fromhex(payload))
    ]


def stored(events: list[ResidencyEvent], tier: Tier, agent: str) -> list[Stored]:
    return [e for e in events if isinstance(e, Stored) and (e.tier, e.agent) == (tier, agent)]


def test_a_server_begins_with_nothing(events: list[ResidencyEvent]) -> None:
    assert events[0] == Cleared()


def test_blocks_form_chains_and_tell_their_agent(events: list[ResidencyEvent]) -> None:
    root, child = stored(events, Tier.DEVICE, "a0")[:2]
    assert (root.parent, root.token_ids, root.block_size) == (None, tuple(range(100, 164)), 32)
    assert (child.parent, child.token_ids) == (root.hashes[-1], tuple(range(164, 196)))
    assert (root.cache_salt, root.lora_name) == (None, None)


def test_salt_and_lora_are_namespaces_of_their_own(events: list[ResidencyEvent]) -> None:
    plain = stored(events, Tier.DEVICE, "a0")[0]
    (salted,) = stored(events, Tier.DEVICE, "a2")
    (adapted,) = stored(events, Tier.DEVICE, "a4")
    assert (salted.cache_salt, salted.lora_name) == ("pepper", None)
    assert (adapted.cache_salt, adapted.lora_name) == (None, "lora00")
    assert adapted.token_ids == plain.token_ids
    assert not set(adapted.hashes) & set(plain.hashes)


def test_what_leaves_the_device_stays_on_the_host_and_comes_back(events: list[ResidencyEvent]) -> None:
    first = stored(events, Tier.DEVICE, "a0")[0]
    on_host = {block for e in events if isinstance(e, Stored) and e.tier is Tier.HOST for block in e.hashes}
    assert set(first.hashes) <= on_host
    history = [
        type(event)
        for event in events
        if isinstance(event, Stored | Removed)
        and event.tier is Tier.DEVICE
        and first.hashes[0] in event.hashes
    ]
    assert history == [Stored, Removed, Stored]
