"""The adapter for any OpenAI-compatible engine and its answers to a server's answers, without a server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pytest

from scalesim_adapters.base import (
    Capability,
    EngineUnavailable,
    FeedLost,
    MemoryKind,
    PrefixItem,
    Pressure,
    ProtocolMismatch,
    Rejected,
    Tier,
    Unsupported,
)
from scalesim_adapters.openai.adapter import OpenaiAdapter

# As llama.cpp b10434 answers, shortened.
PROPS = {
    "default_generation_settings": {"params": {"seed": 4294967295}, "n_ctx": 64},
    "total_slots": 2,
    "media_marker": "<__media_Af5K2nXwT2bsiPK2EWzKPTCiE9fawwo9__>",
    "endpoint_slots": True,
    "build_info": "b1-7e4c0a9",
}
SLOTS = [
    {"id": 1, "n_ctx": 64, "is_processing": True, "id_task": 7, "n_prompt_tokens": 40},
    {"id": 0, "n_ctx": 64, "is_processing": False},
]
MISSING = {"error": {"message": "File Not Found", "type": "not_found_error", "code": 404}}
MODELS = {"object": "list", "data": [{"id": "base", "object": "model", "owned_by": "someone"}]}
ITEM = PrefixItem("sim/a", "base", tuple(range(10, 50)))


def completion(tokens: int, cached: int) -> dict[str, Any]:
    return {"usage": {"prompt_tokens": tokens, "prompt_tokens_details": {"cached_tokens": cached}}}


class Server:
    """Answers each path with what it was given for it, and keeps what it was sent."""

    def __init__(self, **answers: Any) -> None:
        self.sent: list[tuple[str, Any]] = []
        self._answers = {"/v1/models": MODELS} | {f"/{path}": answer for path, answer in answers.items()}

    async def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        if request.method == "POST":
            self.sent.append((path, json.loads(request.content)))
        answer = self._answers.get(path)
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            return httpx.Response(404, json=MISSING)
        return (
            httpx.Response(200, text=answer) if isinstance(answer, str) else httpx.Response(200, json=answer)
        )


def drive(server: Server, body: Callable[[OpenaiAdapter], Awaitable[Any]], **options: Any) -> Any:
    async def main() -> Any:
        adapter = OpenaiAdapter("http://engine", transport=httpx.MockTransport(server.answer), **options)
        try:
            return await body(adapter)
        finally:
            await adapter.close()

    return asyncio.run(main())


def llamacpp(**answers: Any) -> Server:
    return Server(**{"props": PROPS, "slots": SLOTS, **answers})


def load(item: PrefixItem) -> Callable[[OpenaiAdapter], Awaitable[Any]]:
    return lambda adapter: adapter.load(item, Tier.DEVICE, deadline=5)


def test_a_bare_server_is_known_by_its_models_and_by_what_it_is_told_to_be() -> None:
    info = drive(Server(), lambda adapter: adapter.probe())
    assert (info.engine, info.base_models, info.prompt_slots) == ("openai", ("base",), None)
    assert info.capabilities[MemoryKind.PREFIX_KV] == Capability.LOAD
    assert len(info.missing) == 2
    told = drive(Server(), lambda adapter: adapter.probe(), prompt_slots=3, tagged=True)
    assert (told.prompt_slots, told.missing) == (3, ())


def test_llamacpp_tells_its_slots_and_lets_us_choose_one() -> None:
    info = drive(llamacpp(), lambda adapter: adapter.probe(), prompt_slots=3)
    assert (info.engine, info.version, info.prompt_slots) == ("llama.cpp", "b1-7e4c0a9", 2)
    assert (info.incarnation, info.max_model_len) == (PROPS["media_marker"], 64)
    assert Capability.PLACE in info.capabilities[MemoryKind.PREFIX_KV]


def test_after_an_outage_a_server_without_a_name_is_another_one() -> None:
    server = Server()

    async def body(adapter: OpenaiAdapter) -> None:
        first = (await adapter.probe()).incarnation
        assert (await adapter.probe()).incarnation == first
        server._answers["/v1/models"] = httpx.ConnectError("refused")
        with pytest.raises(EngineUnavailable):
            await adapter.probe()
        server._answers["/v1/models"] = MODELS
        second = (await adapter.probe()).incarnation
        assert second != first
        server._answers["/v1/completions"] = httpx.ConnectError("refused")
        with pytest.raises(EngineUnavailable):
            await adapter.load(ITEM, Tier.DEVICE, deadline=5.0)
        assert (await adapter.probe()).incarnation not in (first, second)

    drive(server, body)


def test_a_prefix_goes_to_its_slot_where_that_is_ours_to_say() -> None:
    item = PrefixItem("sim/a", "base", ITEM.token_ids, slot=1)
    server = llamacpp(**{"v1/completions": completion(40, 39)})
    outcome = drive(server, load(item))
    ((path, body),) = server.sent
    assert (path, body["prompt"], body["max_tokens"]) == ("/v1/completions", list(ITEM.token_ids), 1)
    assert (body["id_slot"], body["user"]) == (1, "sim/a")
    assert (outcome.tokens, outcome.cached) == (40, 40)
    bare = Server(**{"v1/completions": completion(41, 32)})
    outcome = drive(bare, load(item))
    assert "id_slot" not in bare.sent[0][1] and len(bare.sent[0][1]["prompt"]) == 41
    assert (outcome.tokens, outcome.cached) == (40, 32)


def test_a_prompt_that_would_empty_the_slot_it_is_refused_in_is_not_sent() -> None:
    server = llamacpp()
    with pytest.raises(Rejected, match="64"):
        drive(server, load(PrefixItem("sim/a", "base", (11,) * 64)))
    assert server.sent == []


def test_what_has_no_tokens_is_sent_as_it_is() -> None:
    server = Server(**{"v1/completions": completion(9, 4), "v1/chat/completions": completion(12, 0)})
    outcome = drive(server, load(PrefixItem("sim/a", "base", text="once upon a time")))
    assert (outcome.tokens, outcome.cached) == (9, 4)
    talk = ({"role": "system", "content": "a baker"},)
    drive(server, load(PrefixItem("sim/a", "base", messages=talk)))
    sent = dict(server.sent)
    assert sent["/v1/completions"]["prompt"] == "once upon a time"
    assert sent["/v1/chat/completions"]["messages"] == list(talk)
    with pytest.raises(Rejected):
        drive(server, load(PrefixItem("sim/a", "base")))


@pytest.mark.parametrize("answer", [None, {"error": "Unexpected endpoint"}, {"tokens": ["a"]}])
def test_tokens_that_a_server_does_not_make_are_unsupported(answer: Any) -> None:
    with pytest.raises(Unsupported):
        drive(Server(tokenize=answer), lambda adapter: adapter.tokenize("base", text="a"))


def test_llamacpp_makes_tokens_of_conversations_by_its_template() -> None:
    server = llamacpp(**{"apply-template": {"prompt": "<|system|>hi"}, "tokenize": {"tokens": [1, 2, 3]}})
    talk = [{"role": "system", "content": "hi"}]
    assert drive(server, lambda adapter: adapter.tokenize("base", messages=talk)) == (1, 2, 3)
    assert [body for path, body in server.sent] == [
        {"messages": talk, "add_generation_prompt": False},
        {"content": "<|system|>hi", "add_special": True, "parse_special": True},
    ]


def test_pressure_is_told_by_slots_and_what_waits_for_one_by_metrics() -> None:
    async def body(adapter: OpenaiAdapter) -> Any:
        await adapter.probe()
        return await adapter.pressure(), await adapter.serving(), (await adapter.inventory()).slot_requests

    assert drive(llamacpp(), body) == (Pressure(1, 0, None), 1, (-1, 7))
    metrics = "# TYPE llamacpp:requests_deferred gauge\nllamacpp:requests_deferred 2\n"
    assert drive(llamacpp(metrics=metrics), body) == (Pressure(1, 2, None), 3, (-1, 7))
    assert drive(Server(), body) == (None, None, None)
    assert drive(Server(), body, tagged=True) == (Pressure(0, 0, None), None, None)
    with pytest.raises(ProtocolMismatch):
        drive(llamacpp(slots={"slots": 2}), body)


def test_slots_that_are_emptied_behind_our_back_hold_nothing_to_plan_with() -> None:
    held = [{"id": 0, "is_processing": False, "id_task": 7, "n_prompt_tokens": 40}]
    server = llamacpp(slots=held)

    async def body(adapter: OpenaiAdapter) -> Any:
        await adapter.probe()
        found = []
        for slot in (
            {},
            {"id_task": 9, "n_prompt_tokens": 0},
            {"id_task": 11},
            {"id_task": 11, "n_prompt_tokens": 0},
        ):
            server._answers["/slots"] = [held[0] | slot]
            await adapter.inventory()
            found.append((await adapter.probe()).prompt_slots)
        server._answers["/props"] = PROPS | {"media_marker": "<__media_restarted__>"}
        return [*found, (await adapter.probe()).prompt_slots]

    assert drive(server, body) == [2, 2, 2, None, 2]


def test_it_tells_that_it_tells_nothing() -> None:
    async def body(adapter: OpenaiAdapter) -> Any:
        return await anext(adapter.events())

    assert isinstance(drive(Server(), body), FeedLost)
