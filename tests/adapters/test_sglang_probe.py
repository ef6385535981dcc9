"""What the SGLang adapter reads of a server: sizes, abilities with their remedies, incarnations and counts."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from scalesim_adapters.base import (
    Capability,
    FeedLost,
    MemoryKind,
    NotFound,
    ProtocolMismatch,
)
from scalesim_adapters.sglang.adapter import SglangAdapter
from tests.adapters.sglang_answers import (
    GOLDEN,
    INFO,
    Server,
    drive,
    info_with,
    probe,
    recorded,
)


def test_probe_reads_sizes() -> None:
    info = probe(Server())
    assert (info.engine, info.version, info.base_models, info.max_model_len) == (
        "sglang",
        "0.5.23",
        ("base",),
        1024,
    )
    assert (info.block_size, info.device_blocks) == (32, 40)
    # Of three slots the base model has one.
    assert (info.lora_slots, info.lora_host_places) == (2, None)


def test_each_start_is_another_incarnation() -> None:
    changes: tuple[dict[str, Any], ...] = (
        {},
        {"random_seed": 7},
        {"startup_time": {**INFO["startup_time"], "scheduler_e2e": 1.25}},
    )
    servers = [Server(**{"/server_info": info_with(kv_events_config=None, **change)}) for change in changes]
    assert len({probe(server).incarnation for server in servers}) == 3
    assert probe(servers[0]).incarnation == probe(Server()).incarnation


FEED = json.loads(INFO["kv_events_config"])


@pytest.mark.parametrize(
    ("changes", "kind", "lacks", "remedy"),
    [
        ({}, MemoryKind.PREFIX_KV, Capability.EVENTS, "--kv-events-config"),
        (
            {"kv_events_config": json.dumps({**FEED, "format": "default"})},
            MemoryKind.PREFIX_KV,
            Capability.EVENTS,
            '"format": "dynamo"',
        ),
        (
            {"kv_events_config": json.dumps({**FEED, "endpoint": "ipc:///nonexistent/kv"})},
            MemoryKind.PREFIX_KV,
            Capability.EVENTS,
            "nobody listens",
        ),
        ({"kv_events_config": '{"publisher": "null"}'}, MemoryKind.PREFIX_KV, Capability.EVENTS, "zmq"),
        ({"disable_radix_cache": True}, MemoryKind.PREFIX_KV, Capability.LOAD, "--disable-radix-cache"),
        ({"dp_size": 2}, MemoryKind.PREFIX_KV, Capability.LOAD, "2 data parallel replicas"),
        ({"dp_size": 2}, MemoryKind.LORA, Capability.LOAD, "2 data parallel replicas"),
        ({"enable_lora": None}, MemoryKind.LORA, Capability.LOAD | Capability.LIST, "--enable-lora"),
        ({"enable_metrics": False}, MemoryKind.MODEL, Capability.LOAD, "--enable-metrics"),
        ({"page_size": 1}, MemoryKind.MODEL, Capability.LOAD, "--page-size"),
    ],
)
def test_probe_names_the_remedy_of_what_is_missing(
    changes: dict[str, Any], kind: MemoryKind, lacks: Capability, remedy: str
) -> None:
    info = probe(Server(**{"/server_info": info_with(**{"kv_events_config": None, **changes})}))
    assert not info.capabilities[kind] & lacks
    assert any(remedy in missing.remedy for missing in info.missing)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, json={"version": "0.32.0"}),
        httpx.Response(200, json=[]),
        info_with(kv_events_config="{"),
    ],
)
def test_another_server_is_not_taken_for_an_sglang(answer: httpx.Response) -> None:
    with pytest.raises(ProtocolMismatch):
        probe(Server(**{"/server_info": answer}))


def test_events_of_a_server_that_publishes_none_are_lost() -> None:
    async def body(adapter: SglangAdapter) -> Any:
        return await anext(adapter.events())

    lost = drive(Server(), body)
    assert isinstance(lost, FeedLost)
    assert "--kv-events-config" in lost.reason


def test_pressure_counts_requests_and_does_without_metrics() -> None:
    loads = recorded("loads").json()
    loads["loads"][0] |= {"num_running_reqs": 2, "num_waiting_reqs": 3}
    counted = drive(
        Server(**{"/v1/loads": httpx.Response(200, json=loads)}), lambda adapter: adapter.pressure()
    )
    finished = sum(float(line.split()[-1]) for line in GOLDEN.all["metrics"])
    assert (counted.running, counted.waiting, counted.finished) == (2, 3, finished)
    assert finished > 0
    uncounted = Server(**{"/metrics": recorded("a route that doesn't exist")})
    assert drive(uncounted, lambda adapter: adapter.pressure()).finished == 0
    for odd in ({}, {"loads": [{}]}, {"loads": None}):
        with pytest.raises(ProtocolMismatch):
            drive(Server(**{"/v1/loads": httpx.Response(200, json=odd)}), lambda adapter: adapter.pressure())


def test_tokens_of_a_model_that_isnt_there() -> None:
    """The server itself would answer with the base model's."""
    with pytest.raises(NotFound):
        drive(Server(), lambda adapter: adapter.tokenize("nobody", text="the baker walks"))
    tokens = drive(Server(), lambda adapter: adapter.tokenize("base", text="the baker walks"))
    assert list(tokens) == recorded("tokenize a text").json()["tokens"]
