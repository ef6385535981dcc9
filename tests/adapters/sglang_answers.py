"""A server for tests of the SGLang adapter: it answers as a real one has, and keeps what it was asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx

from scalesim_adapters.base import EngineInfo, Item, PrefixItem, Tier
from scalesim_adapters.sglang.adapter import SglangAdapter
from tests.adapters.answers import MODELS, Answer, Golden, RecordedServer, driven

GOLDEN = Golden("sglang-0.5.23.json")
INFO = GOLDEN.all["server_info"]
GENERATE, ABORT, CLOSE = "/generate", "/abort_request", "/close_session"
LOAD, UNLOAD = "/load_lora_adapter", "/unload_lora_adapter"
RELEASE, RESUME = "/release_memory_occupation", "/resume_memory_occupation"
ITEM = PrefixItem("town/ann", "base", tuple(range(64)))
Drive = Callable[[SglangAdapter], Awaitable[Any]]
recorded, models_with = GOLDEN.recorded, GOLDEN.models_with


def info_with(**changes: Any) -> httpx.Response:
    """Return what a server tells of itself that was started with other arguments."""
    return httpx.Response(200, json={**INFO, **changes})


def inside(released: Sequence[str] = (), **changes: Any) -> httpx.Response:
    """Return what a server tells of itself that has our plug-in, of whose memory this is released."""
    told = {
        "following": False,
        "released": list(released),
        "lora_device": [],
        "lora_host": [],
        "lora_held": [],
    }
    return info_with(kv_events_config=None, internal_states=[{"scalesim": told}], **changes)


class Server(RecordedServer):
    """Answers with what a real server said, unless told otherwise."""

    def __init__(self, **answers: Answer) -> None:
        usual: dict[str, Answer] = {
            "/server_info": info_with(kv_events_config=None),
            "/v1/loads": recorded("loads"),
            "/metrics": httpx.Response(200, text=GOLDEN.metrics),
            "/tokenize": recorded("tokenize a text"),
            MODELS: recorded("models, no LoRA loaded"),
            GENERATE: recorded("request, warm: both pages cached"),
            LOAD: recorded("load a LoRA"),
            UNLOAD: recorded("unload a LoRA"),
            CLOSE: recorded("close a session"),
            ABORT: recorded("abort a request that isn't there"),
            RELEASE: httpx.Response(200, json=None),
            RESUME: httpx.Response(200, json=None),
        }
        super().__init__(GOLDEN, usual | answers)


def drive(server: Server, body: Drive, **options: Any) -> Any:
    """Run with an adapter of this server; return what `body` returns."""
    return driven(SglangAdapter, server, body, options)


def load(item: Item) -> Drive:
    return lambda adapter: adapter.load(item, Tier.DEVICE, deadline=5)


def evict(item: Item, to: Tier = Tier.HOST) -> Drive:
    return lambda adapter: adapter.evict(item, to, deadline=5)


def probe(server: Server, **options: Any) -> EngineInfo:
    info = drive(server, lambda adapter: adapter.probe(), **options)
    assert isinstance(info, EngineInfo)
    return info
