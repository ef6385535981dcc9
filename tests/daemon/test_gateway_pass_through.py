"""The gateway as a pass-through: the same bytes, broken streams stay broken, and nobody waits for nothing."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from scalesim_client.events import MAX_MESSAGE_BYTES
from scalesim_daemon.setting_sources import load_settings
from scalesim_daemon.settings import ConfigError
from tests.daemon.gateway_rig import gateway
from tests.daemon.live import WITHIN, daemon, emulator
from tests.daemon.raw_engine import HEAD, Line, chunk, raw_engine

ASK = {"model": "base", "messages": [{"role": "user", "content": "what now?"}], "max_tokens": 20}
# What differs between two answers of one engine.
UNIQUE = re.compile(rb'"(id|created)":("[^"]*"|\d+)')


def same(answer: httpx.Response) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    varying = (b"date", b"content-length")
    headers = sorted(pair for pair in answer.headers.raw if pair[0].lower() not in varying)
    return answer.status_code, headers, UNIQUE.sub(b"", answer.content)


CALLS: list[tuple[str, str, Any]] = [
    ("POST", "/v1/chat/completions", ASK),
    ("POST", "/v1/chat/completions", {**ASK, "stream": True}),
    ("POST", "/v1/completions", {"model": "base", "prompt": [1, 2, 3], "stream": True, "user": "rosa"}),
    ("POST", "/v1/completions", {"model": "nobody's", "prompt": "a"}),
    ("POST", "/v1/completions", {"model": "base", "prompt": {}}),
    ("POST", "/v1/embeddings", {"model": "base", "input": "a"}),
    ("GET", "/v1/models", None),
]
NONSENSE = (b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b'{"user": "\\ud800"}', b'{"model": []}')


def test_answers_are_the_engines_own_and_so_are_its_refusals(tmp_path: Path) -> None:
    async def scene() -> None:
        with emulator(tmp_path) as engine:
            async with (
                gateway(tmp_path, engine.url) as client,
                httpx.AsyncClient(base_url=engine.url) as direct,
            ):
                for method, path, body in CALLS:
                    answers = [await door.request(method, path, json=body) for door in (client, direct)]
                    assert same(answers[0]) == same(answers[1]), path
                for nonsense in NONSENSE:
                    answer = await client.post("/v1/completions", content=nonsense)
                    assert answer.status_code == 400 and answer.json()["error"]["message"], nonsense[:10]
                await refusals_of_its_own(client)
                assert (await client.post("/v1/chat/completions", json=ASK)).status_code == 200

    asyncio.run(scene())


async def refusals_of_its_own(client: httpx.AsyncClient) -> None:
    for method, path, status in (
        ("POST", "/v1/load_lora_adapter", 404),
        ("GET", "/metrics", 404),
        ("GET", "/v1/completions", 405),
    ):
        answer = await client.request(method, path)
        assert answer.status_code == status
        assert path in answer.json()["error"]["message"]
    assert answer.headers["allow"] == "POST"
    long = b'{"prompt": "' + b"a" * MAX_MESSAGE_BYTES + b'"}'
    answer = await client.post("/v1/completions", content=long)
    assert answer.status_code == 413
    assert str(MAX_MESSAGE_BYTES) in answer.json()["error"]["message"]


async def hang_up(_: Line) -> None:
    """Take a request, and close the connection."""


async def answer(line: Line) -> None:
    await line.say(b"HTTP/1.1 200 OK\r\nx-engine: raw\r\ncontent-length: 2\r\n\r\nok")


async def begin(line: Line) -> None:
    await line.say(HEAD)


async def break_off(line: Line) -> None:
    await line.say(HEAD + chunk(b"data: 1\n\n"))


async def drop_short(line: Line) -> None:
    await line.say(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nok")


def test_nothing_sent_yet_is_asked_again(tmp_path: Path) -> None:
    async def scene() -> None:
        for first in (hang_up, begin):
            async with raw_engine(first, answer) as engine, gateway(tmp_path, engine.url) as client:
                assert (await client.post("/v1/completions", json={"a": 1})).text == "ok"
                assert len(engine.requests) == 2

    asyncio.run(scene())


def test_a_dead_engines_requests_go_to_another_and_none_ends_more_than_two(tmp_path: Path) -> None:
    async def scene() -> None:
        async with raw_engine(answer) as one, raw_engine(answer) as two:

            async def die(_: Line) -> None:
                one.die()

            one.behaviours[:] = [die]
            async with gateway(tmp_path, one.url, two.url) as client:
                assert (await client.post("/v1/completions", json={"a": 1})).text == "ok"
                assert (len(one.requests), len(two.requests)) == (1, 1)
                two.behaviours[:] = [hang_up]
                assert (await client.post("/v1/completions", json={"a": 1})).status_code == 502
                assert (len(one.requests), len(two.requests)) == (1, 3)

    asyncio.run(scene())


def test_a_dead_engine_is_named_with_a_remedy(tmp_path: Path) -> None:
    async def scene() -> None:
        async with gateway(tmp_path, "http://127.0.0.1:9") as client:
            answered = await client.post("/v1/completions", json={"prompt": "a"})
            assert answered.status_code == 502
            error = answered.json()["error"]
            assert "engine-0 at http://127.0.0.1:9" in error["message"]
            assert "scalesimctl status" in error["message"]
            assert error["type"] == "server_error"

    asyncio.run(scene())


@pytest.mark.parametrize("broken", [break_off, drop_short])
def test_a_broken_stream_stays_broken(tmp_path: Path, broken: Any) -> None:
    async def scene() -> None:
        async with raw_engine(broken) as engine, gateway(tmp_path, engine.url) as client:
            heard = b""
            with pytest.raises(httpx.RemoteProtocolError):
                async with client.stream("POST", "/v1/completions", json={"a": 1}) as answered:
                    async for data in answered.aiter_raw():
                        heard += data
            assert heard in (b"data: 1\n\n", b"ok")
            assert len(engine.requests) == 1

    asyncio.run(scene())


def test_a_client_that_goes_away_hangs_up_on_the_engine(tmp_path: Path) -> None:
    async def scene() -> None:
        asked, ended = asyncio.Event(), asyncio.Event()

        async def say_little(line: Line) -> None:
            if b"stream" in line.request:
                await line.say(HEAD + chunk(b"data: 1\n\n"))
            asked.set()
            await line.hung_up()
            ended.set()

        async with raw_engine(say_little) as engine, gateway(tmp_path, engine.url) as client:
            async with client.stream("POST", "/v1/completions", json={"stream": True}) as answered:
                await anext(answered.aiter_raw())
            await asyncio.wait_for(ended.wait(), WITHIN)
            asked.clear()
            ended.clear()
            waiting = asyncio.create_task(client.post("/v1/completions", json={"a": 1}))
            await asyncio.wait_for(asked.wait(), WITHIN)
            waiting.cancel()
            await asyncio.wait_for(ended.wait(), WITHIN)

    asyncio.run(scene())


def test_headers_pass_but_for_those_of_one_connection(tmp_path: Path) -> None:
    async def scene() -> None:
        async with raw_engine(answer) as engine, gateway(tmp_path, engine.url) as client:
            sent = {
                "authorization": "Bearer x",
                "te": "trailers",
                "connection": "x-mine",
                "x-mine": "1",
                "x-request-id": "r",
            }
            answered = await client.post("/v1/embeddings?a=%2f", json={"a": 1}, headers=sent)
            assert [pair for pair in answered.headers.raw if pair[0].lower() != b"content-length"] == [
                (b"x-engine", b"raw")
            ]
            (request,) = engine.requests
            head, body = request.split(b"\r\n\r\n")
            assert head.startswith(b"POST /v1/embeddings?a=%2f HTTP/1.1")
            names = {line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:]}
            assert names == {
                *(b"host", b"content-length", b"content-type", b"user-agent", b"accept", b"accept-encoding"),
                *(b"authorization", b"x-request-id"),
            }
            assert json.loads(body) == {"a": 1}

    asyncio.run(scene())


def test_one_port_for_both_is_refused_at_boot(tmp_path: Path) -> None:
    engines = [{"url": "http://127.0.0.1:8000"}]
    with pytest.raises(ConfigError, match=r"gateway\.port: 8700 is the API's"):
        load_settings(None, {"gateway": {"enabled": True, "port": 8700}, "engines": engines})
    with pytest.raises(ConfigError, match="no engine to pass requests on to"):
        load_settings(None, {"gateway": {"enabled": True}})
    with pytest.raises(ConfigError, match="names no field"):
        load_settings(None, {"gateway": {"agent": "me"}})

    async def scene() -> None:
        async with daemon(tmp_path / "one") as (sidecar, _):
            taken = int(sidecar.api_url.rpartition(":")[2])
            with pytest.raises(ConfigError, match=f"gateway.port: {taken} of 127.0.0.1: "):
                async with daemon(
                    tmp_path / "two", "http://127.0.0.1:9", gateway={"enabled": True, "port": taken}
                ):
                    pass

    asyncio.run(scene())
