"""The vLLM adapter's answers to a server's answers, without a server: errors, remedies, and what is never
sent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from scalesim_adapters.base import (
    Capability,
    CapacityExceeded,
    DeadlineExceeded,
    EngineError,
    EngineInfo,
    EngineUnavailable,
    LoraItem,
    MemoryKind,
    NotFound,
    PrefixItem,
    ProtocolMismatch,
    Rejected,
    Tier,
    Unsupported,
)
from scalesim_adapters.vllm import metrics
from scalesim_adapters.vllm.adapter import VllmAdapter
from tests.adapters.vllm_answers import (
    COMPLETIONS,
    LOAD,
    METRICS,
    MODELS,
    UNLOAD,
    Server,
    drive,
    models_with,
    recorded,
)

ITEM = PrefixItem("town/ann", "base", tuple(range(64)))


def load(item: PrefixItem | LoraItem) -> Callable[[VllmAdapter], Awaitable[Any]]:
    return lambda adapter: adapter.load(item, Tier.DEVICE, deadline=5)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (recorded("completion with an unknown model"), NotFound),
        (recorded("completion of zero tokens"), Rejected),
        (recorded("completion of a prompt that is too long"), Rejected),
        (recorded("a route that doesn't exist"), Unsupported),
        (recorded("a GET at the route that loads LoRAs"), Unsupported),
        (httpx.Response(401, json={"error": "Unauthorized"}), Rejected),
        (httpx.Response(429, text="slow down"), CapacityExceeded),
        (httpx.Response(503, json={"error": {"message": "busy"}}), CapacityExceeded),
        (httpx.Response(500, json={"error": {"message": "EngineCore died"}}), EngineUnavailable),
        (httpx.Response(200, text="<html>"), ProtocolMismatch),
        (httpx.Response(200, json=[]), ProtocolMismatch),
        (httpx.Response(200, json={"choices": []}), ProtocolMismatch),
        (httpx.ConnectError("refused"), EngineUnavailable),
        (httpx.ReadError("reset"), EngineUnavailable),
        (httpx.RemoteProtocolError("closed"), EngineUnavailable),
        (TimeoutError(), DeadlineExceeded),
    ],
)
def test_each_failure_is_one_of_the_contracts_errors(
    answer: httpx.Response | Exception, error: type[EngineError]
) -> None:
    with pytest.raises(EngineError) as raised:
        drive(Server(**{COMPLETIONS: answer}), load(ITEM))
    assert type(raised.value) is error


def test_a_prefix_is_sent_as_one_token_request_of_the_agent() -> None:
    server = Server()
    item = PrefixItem("town/ann", "base", tuple(range(64)), cache_salt="pepper")

    async def body(adapter: VllmAdapter) -> Any:
        await adapter.probe()
        return await adapter.load(item, Tier.DEVICE, deadline=5)

    outcome = drive(server, body, api_key="secret")
    assert (outcome.tokens, outcome.cached) == (64, 64)
    sent = server.posted(COMPLETIONS)[-1]
    assert sent["prompt"] == [*range(64), 63]
    assert (sent["max_tokens"], sent["session_id"], sent["cache_salt"]) == (1, "town/ann", "pepper")
    ids = [headers["x-request-id"] for headers in server.headers]
    assert all(id.startswith("scalesim-one-") for id in ids)
    assert len(set(ids)) == len(ids)
    assert {headers["authorization"] for headers in server.headers} == {"Bearer secret"}


def test_cached_tokens_may_be_untold() -> None:
    answer = recorded("completion, warm: both blocks cached").json()
    answer["usage"]["prompt_tokens_details"] = None
    outcome = drive(Server(**{COMPLETIONS: httpx.Response(200, json=answer)}), load(ITEM))
    assert (outcome.tokens, outcome.cached) == (64, 0)


def test_a_new_lora_is_registered_and_a_known_one_touched(lora: LoraItem) -> None:
    new = Server()
    drive(new, load(lora))
    assert new.posted(LOAD) == [{"lora_name": "lora00", "lora_path": str(lora.path)}]
    assert new.posted(COMPLETIONS) == []
    known = Server(**{MODELS: models_with(lora)})
    drive(known, load(lora))
    assert known.posted(LOAD) == []
    assert [body["model"] for body in known.posted(COMPLETIONS)] == ["lora00"]


def test_a_lora_known_from_another_path_is_rejected(lora: LoraItem, tmp_path: Path) -> None:
    server = Server(**{MODELS: models_with(LoraItem("lora00", tmp_path / "elsewhere"))})
    with pytest.raises(Rejected, match="elsewhere"):
        drive(server, load(lora))
    assert server.posted(LOAD) == server.posted(COMPLETIONS) == []


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_nothing_is_sent_that_would_make_the_engine_read_missing_files(lora: LoraItem, missing: str) -> None:
    (lora.path / missing).unlink()
    server = Server(**{MODELS: models_with(lora)})
    for item in (lora, PrefixItem("town/ann", lora.name, ITEM.token_ids)):
        with pytest.raises(Rejected, match=str(lora.path)):
            drive(server, load(item))
    with pytest.raises(Rejected, match=str(lora.path)):
        drive(server, load(LoraItem("lora01", lora.path)))
    assert server.posted(LOAD) == server.posted(COMPLETIONS) == []


def test_a_lora_that_somebody_else_loads_meanwhile_is_fine(lora: LoraItem) -> None:
    server = Server(**{LOAD: recorded("load the same LoRA again")})
    before, after = recorded("models, no LoRA loaded"), models_with(lora)
    answers = iter([before, after])
    original = server.answer

    async def answer(request: httpx.Request) -> httpx.Response:
        reply = await original(request)
        return next(answers) if request.url.path == MODELS else reply

    server.answer = answer
    drive(server, load(lora))
    assert len(server.posted(LOAD)) == 1


def test_a_lora_that_the_engine_cannot_take_is_not_an_engine_that_is_away(lora: LoraItem) -> None:
    broken = recorded("load a LoRA whose weights are truncated")
    with pytest.raises(Rejected, match="invalid header"):
        drive(Server(**{LOAD: broken}), load(lora))
    with pytest.raises(EngineUnavailable):
        drive(Server(**{LOAD: broken, "/health": httpx.ConnectError("refused")}), load(lora))


def test_release_forgets_a_name_known_or_not(lora: LoraItem) -> None:
    for answer in (recorded("unload a LoRA"), recorded("unload an unknown LoRA")):
        server = Server(**{UNLOAD: answer})
        drive(server, lambda adapter: adapter.release(lora, deadline=5))
        assert server.posted(UNLOAD) == [{"lora_name": "lora00"}]
    with pytest.raises(Unsupported):
        drive(
            Server(**{UNLOAD: recorded("a route that doesn't exist")}),
            lambda adapter: adapter.release(lora, deadline=5),
        )


def probe(server: Server) -> EngineInfo:
    info = drive(server, lambda adapter: adapter.probe())
    assert isinstance(info, EngineInfo)
    return info


def without(text: str) -> str:
    """Return the metrics without the lines that contain `text`."""
    return "\n".join(line for line in METRICS.splitlines() if text not in line)


def test_probe_reads_sizes() -> None:
    info = probe(Server())
    assert (info.version, info.base_models, info.max_model_len) == ("0.32.0", ("base",), 1024)
    assert (info.block_size, info.device_blocks, info.lora_slots) == (32, 40, 2)


@pytest.mark.parametrize(
    ("answers", "kind", "lacks", "remedy"),
    [
        ({}, MemoryKind.PREFIX_KV, Capability.EVENTS, "--kv-events-config"),
        (
            {"/metrics": httpx.Response(200, text=without("vllm:lora_requests_info"))},
            MemoryKind.LORA,
            Capability.LOAD | Capability.LIST,
            "--enable-lora",
        ),
        (
            {
                "/metrics": httpx.Response(
                    200, text=METRICS.replace('enable_prefix_caching="True"', 'enable_prefix_caching="False"')
                )
            },
            MemoryKind.PREFIX_KV,
            Capability.LOAD,
            "--enable-prefix-caching",
        ),
        (
            {"/metrics": httpx.Response(200, text=without("process_start_time"))},
            MemoryKind.PREFIX_KV,
            Capability.LOAD,
            "--api-server-count 1",
        ),
        (
            {"/metrics": httpx.Response(200, text=METRICS + METRICS.replace('engine="0"', 'engine="1"'))},
            MemoryKind.LORA,
            Capability.LOAD,
            "2 data parallel engines",
        ),
    ],
)
def test_probe_names_the_remedy_of_what_is_missing(
    answers: dict[str, httpx.Response], kind: MemoryKind, lacks: Capability, remedy: str
) -> None:
    info = probe(Server(**answers))
    assert not info.capabilities[kind] & lacks
    assert any(remedy in missing.remedy for missing in info.missing)


def test_what_a_probe_found_to_be_impossible_is_refused() -> None:
    server = Server(**{"/metrics": httpx.Response(200, text=without("process_start_time"))})

    async def body(adapter: VllmAdapter) -> None:
        await adapter.probe()
        asked = len(server.asked)
        with pytest.raises(Unsupported, match="--api-server-count 1"):
            await adapter.load(ITEM, Tier.DEVICE, deadline=5)
        assert len(server.asked) == asked

    drive(server, body)


def test_the_usage_probe_is_sent_once_in_an_engines_life() -> None:
    answer = recorded("completion, warm: both blocks cached").json()
    answer["usage"]["prompt_tokens_details"] = None
    server = Server(**{COMPLETIONS: httpx.Response(200, json=answer)})

    async def body(adapter: VllmAdapter) -> None:
        for _ in range(3):
            info = await adapter.probe()
            assert any(missing.remedy == "--enable-prompt-tokens-details" for missing in info.missing)

    drive(server, body)
    assert len(server.posted(COMPLETIONS)) == 1


def test_pressure_adds_up_the_counters() -> None:
    pressure = drive(Server(), lambda adapter: adapter.pressure())
    finished = sum(
        float(line.split()[-1]) for line in METRICS.splitlines() if line.startswith("vllm:request_success")
    )
    assert (pressure.running, pressure.waiting, pressure.finished) == (0, 0, finished)
    assert finished > 0
    with pytest.raises(ProtocolMismatch):
        drive(Server(**{"/metrics": httpx.Response(200, text="")}), lambda adapter: adapter.pressure())


def test_metrics_labels_may_hold_anything() -> None:
    samples = metrics.parse('vllm:cache_config_info{a="x,y=\\"z\\"}",block_size="16"} 1.0\n')
    assert samples[metrics.CACHE][0].labels["block_size"] == "16"
    with pytest.raises(ProtocolMismatch):
        metrics.parse("vllm:num_requests_running many\n")


@pytest.mark.parametrize("arguments", [{}, {"text": "a", "messages": []}])
def test_tokenize_takes_one_form(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        drive(Server(), lambda adapter: adapter.tokenize("base", **arguments))
