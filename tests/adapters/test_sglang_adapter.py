"""The SGLang adapter's answers to a server's answers, without a server: errors, and what is and is never sent."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from scalesim_adapters.base import (
    Capability,
    CapacityExceeded,
    DeadlineExceeded,
    EngineError,
    EngineUnavailable,
    Item,
    LoraItem,
    MemoryKind,
    ModelItem,
    NotFound,
    PrefixItem,
    ProtocolMismatch,
    Rejected,
    Tier,
    Unsupported,
)
from scalesim_adapters.sglang import adapter as module
from scalesim_adapters.sglang.adapter import SglangAdapter
from tests.adapters.sglang_answers import (
    ABORT,
    CLOSE,
    GENERATE,
    ITEM,
    LOAD,
    MODELS,
    UNLOAD,
    Server,
    drive,
    evict,
    info_with,
    load,
    models_with,
    probe,
    recorded,
)


def aborted() -> httpx.Response:
    """Answer as the server does for a request that was aborted while it waited."""
    answer = recorded("request, cold: two full pages").json()
    answer["meta_info"]["finish_reason"] = {"type": "abort", "message": "Aborted", "status_code": None}
    return httpx.Response(200, json=answer)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (recorded("request of a prompt that is too long"), Rejected),
        (recorded("request of an empty prompt"), Rejected),
        (recorded("a route that doesn't exist"), Unsupported),
        (aborted(), CapacityExceeded),
        (httpx.Response(401, json={"error": "Unauthorized"}), Rejected),
        (httpx.Response(503, text="busy"), CapacityExceeded),
        (httpx.Response(500, text="Internal Server Error"), EngineUnavailable),
        (httpx.Response(200, text="<html>"), ProtocolMismatch),
        (httpx.Response(200, json=[]), ProtocolMismatch),
        (httpx.Response(200, json={"meta_info": {}}), ProtocolMismatch),
        (httpx.ConnectError("refused"), EngineUnavailable),
        (httpx.ReadError("reset"), EngineUnavailable),
        (TimeoutError(), DeadlineExceeded),
    ],
)
def test_each_failure_is_one_of_the_contracts_errors(
    answer: httpx.Response | Exception, error: type[EngineError]
) -> None:
    with pytest.raises(EngineError) as raised:
        drive(Server(**{GENERATE: answer}), load(ITEM))
    assert type(raised.value) is error


def test_a_prefix_is_sent_as_a_request_for_no_token_with_its_agents_session() -> None:
    server = Server()
    item = PrefixItem("town/ann", "base", tuple(range(64)), cache_salt="pepper")
    outcome = drive(server, load(item))
    assert (outcome.tokens, outcome.cached) == (64, 64)
    (sent,) = server.posted(GENERATE)
    assert sent.pop("rid").startswith("scalesim-one-")
    assert sent == {
        "input_ids": [*range(64), 63],
        "sampling_params": {"max_new_tokens": 0},
        "session_id": "town/ann",
        "cache_salt": "pepper",
    }


def test_a_prefix_under_a_lora_names_it(lora: LoraItem) -> None:
    server = Server(**{MODELS: models_with(lora)})
    drive(server, load(PrefixItem("town/ann", lora.name, ITEM.token_ids)))
    assert [body["lora_path"] for body in server.posted(GENERATE)] == [lora.name]


def test_a_lora_that_the_server_let_go_of_is_not_loaded_again_by_a_prefetch(lora: LoraItem) -> None:
    server = Server()
    with pytest.raises(NotFound, match="lora00"):
        drive(server, load(PrefixItem("town/ann", lora.name, ITEM.token_ids)))
    assert server.posted(GENERATE) == []


def test_a_new_lora_is_registered_and_a_known_one_touched(lora: LoraItem) -> None:
    new = Server()
    drive(new, load(lora))
    assert new.posted(LOAD) == [{"lora_name": "lora00", "lora_path": str(lora.path)}]
    assert new.posted(GENERATE) == []
    known = Server(**{MODELS: models_with(lora)})
    drive(known, load(lora))
    assert known.posted(LOAD) == []
    assert [body["lora_path"] for body in known.posted(GENERATE)] == ["lora00"]


def test_a_lora_that_would_displace_another_is_not_loaded(lora: LoraItem, tmp_path: Path) -> None:
    server = Server(
        **{"/server_info": info_with(max_loaded_loras=1, kv_events_config=None), MODELS: models_with(lora)}
    )
    (tmp_path / "lora00").rename(tmp_path / "lora01")
    with pytest.raises(CapacityExceeded, match="--max-loaded-loras 2"):
        drive(server, load(LoraItem("lora01", tmp_path / "lora01")))
    assert server.posted(LOAD) == []


def test_a_lora_known_from_another_path_is_rejected(lora: LoraItem, tmp_path: Path) -> None:
    server = Server(**{MODELS: models_with(LoraItem("lora00", tmp_path / "elsewhere"))})
    with pytest.raises(Rejected, match="elsewhere"):
        drive(server, load(lora))
    assert server.posted(LOAD) == server.posted(GENERATE) == []


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_nothing_is_sent_that_would_make_the_engine_read_missing_files(lora: LoraItem, missing: str) -> None:
    (lora.path / missing).unlink()
    server = Server(**{MODELS: models_with(lora)})
    for item in (lora, PrefixItem("town/ann", lora.name, ITEM.token_ids)):
        with pytest.raises(Rejected, match=str(lora.path)):
            drive(server, load(item))
    assert server.posted(LOAD) == server.posted(GENERATE) == []


def test_a_lora_that_the_engine_cannot_take_is_rejected(lora: LoraItem) -> None:
    with pytest.raises(Rejected, match="invalid header"):
        drive(Server(**{LOAD: recorded("load a LoRA whose weights are truncated")}), load(lora))


def test_release_unloads_a_known_name_and_no_other(lora: LoraItem) -> None:
    known, unknown = Server(**{MODELS: models_with(lora)}), Server()
    for server in (known, unknown):
        drive(server, lambda adapter: adapter.release(lora, deadline=5))
    assert known.posted(UNLOAD) == [{"lora_name": "lora00"}]
    assert unknown.posted(UNLOAD) == []


class Silent(Server):
    """Never answers a request for tokens, and says when one has come."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = asyncio.Event()

    async def answer(self, request: httpx.Request) -> httpx.Response:
        answer = await super().answer(request)
        if request.url.path == GENERATE:
            self.waits.set()
            await asyncio.Event().wait()
        return answer


def test_a_cancelled_load_is_aborted_in_the_server() -> None:
    server = Silent()

    async def body(adapter: SglangAdapter) -> None:
        loading = asyncio.create_task(adapter.load(ITEM, Tier.DEVICE, deadline=5))
        await server.waits.wait()
        loading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loading

    drive(server, body)
    assert server.posted(ABORT) == [{"rid": server.posted(GENERATE)[0]["rid"]}]


def test_a_late_load_is_aborted_in_the_server() -> None:
    server = Silent()
    with pytest.raises(DeadlineExceeded):
        drive(server, lambda adapter: adapter.load(ITEM, Tier.DEVICE, deadline=0.02))
    assert server.posted(ABORT) == [{"rid": server.posted(GENERATE)[0]["rid"]}]


def test_a_prefix_is_demoted_only_where_all_traffic_is_tagged_and_sessions_count() -> None:
    sessions = Server()
    assert Capability.DEMOTE in probe(sessions, tagged=True).capabilities[MemoryKind.PREFIX_KV]
    drive(sessions, evict(ITEM), tagged=True)
    assert sessions.posted(CLOSE) == [{"session_id": "town/ann"}]
    without = Server(**{"/server_info": info_with(enable_session_radix_cache=False, kv_events_config=None)})
    for server, tagged, remedy in (
        (Server(), False, "tagged"),
        (without, True, "--enable-session-radix-cache"),
    ):
        assert Capability.DEMOTE not in probe(server, tagged=tagged).capabilities[MemoryKind.PREFIX_KV]
        with pytest.raises(Unsupported, match=remedy):
            drive(server, evict(ITEM), tagged=tagged)
        assert server.posted(CLOSE) == []


@pytest.mark.parametrize(
    ("changes", "tagged", "ages"),
    [
        ({"radix_eviction_policy": "priority"}, True, True),
        ({"radix_eviction_policy": "priority"}, False, False),
        ({"radix_eviction_policy": "lru"}, True, False),
        # There a priority decides about who runs, and ours would overtake everyone.
        ({"radix_eviction_policy": "priority", "enable_priority_scheduling": True}, True, False),
    ],
)
def test_priorities_age_where_they_decide_about_eviction_alone(
    changes: dict[str, Any], tagged: bool, ages: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(**{"/server_info": info_with(kv_events_config=None, **changes)})
    clock = iter((1000.9, 2000.9))
    monkeypatch.setattr(module, "time", lambda: next(clock))

    async def body(adapter: SglangAdapter) -> None:
        for _ in range(2):
            await adapter.load(ITEM, Tier.DEVICE, deadline=5)

    drive(server, body, tagged=tagged)
    assert [body.get("priority") for body in server.posted(GENERATE)] == (
        [1000, 2000] if ages else [None, None]
    )


def test_nothing_is_ever_sent_that_ends_a_server(lora: LoraItem) -> None:
    """Release and resume of memory where nobody guards them, and labels of requests, end it; a pinned LoRA can't be
    displaced any more."""
    allowed = {"/server_info", MODELS, "/v1/loads", "/metrics", "/tokenize", GENERATE, CLOSE, LOAD, UNLOAD}
    fields = {"rid", "input_ids", "sampling_params", "session_id", "lora_path", "cache_salt", "priority"}
    policy = info_with(radix_eviction_policy="priority", kv_events_config=None)
    salted = PrefixItem("town/ann", "base", ITEM.token_ids, cache_salt="pepper")
    for models in (recorded("models, no LoRA loaded"), models_with(lora)):
        server = Server(**{"/server_info": policy, MODELS: models})

        async def body(adapter: SglangAdapter) -> None:
            items: tuple[Item, ...] = (
                ITEM,
                salted,
                lora,
                PrefixItem("a", lora.name, (1,)),
                ModelItem("base"),
            )
            for item in items:
                for tier in Tier:
                    for call in (adapter.load, adapter.evict):
                        with suppress(EngineError):
                            await call(item, tier, deadline=5)
                with suppress(EngineError):
                    await adapter.release(item, deadline=5)
            await adapter.tokenize("base", text="the baker walks")
            await adapter.inventory()
            await adapter.pressure()

        drive(server, body, tagged=True)
        assert {path for _, path, _ in server.asked} <= allowed
        assert all(set(body) <= fields for body in server.posted(GENERATE))
        assert all(set(body) == {"lora_name", "lora_path"} for body in server.posted(LOAD))
        assert server.posted(GENERATE) and server.posted(CLOSE)
    with pytest.raises(Unsupported):
        drive(Server(), evict(ModelItem("base")), tagged=True)
