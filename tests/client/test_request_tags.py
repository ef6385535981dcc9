from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import unquote

import pytest
from openai import OpenAI

from scalesim_client.tags import agent_key, extra_body, extra_headers, request_tags

ANSWER = json.dumps(
    {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": 0,
        "model": "base",
        "choices": [{"index": 0, "text": "!", "finish_reason": "length", "logprobs": None}],
    }
).encode()


@dataclass
class Received:
    port: int
    headers: list[dict[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)


@pytest.fixture
def engine() -> Iterator[Received]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.headers.append(dict(self.headers.items()))
            received.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(ANSWER)))
            self.end_headers()
            self.wfile.write(ANSWER)

        def log_message(self, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        received = Received(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield received
        server.shutdown()
        thread.join()


def test_tags_of_the_openai_package_arrive(engine: Received) -> None:
    with OpenAI(base_url=f"http://127.0.0.1:{engine.port}/v1", api_key="none", max_retries=0) as client:
        client.completions.create(model="base", prompt="Hi", **request_tags("village", "Ada", priority=-1))
        client.completions.create(model="base", prompt="Hi", **request_tags("村", "李 50%"))
    first, second = engine.headers
    assert (first["X-Session-ID"], first["X-Agent-Id"]) == ("village/Ada", "village/Ada")
    assert json.loads(engine.bodies[0]) == {
        "model": "base",
        "prompt": "Hi",
        "session_id": "village/Ada",
        "priority": -1,
    }
    assert second["X-Session-ID"] == "%E6%9D%91/%E6%9D%8E%2050%25"
    assert unquote(second["X-Agent-Id"]) == "村/李 50%"
    assert json.loads(engine.bodies[1]) == {"model": "base", "prompt": "Hi", "session_id": "村/李 50%"}


def test_tags_of_plain_http_arrive(engine: Received) -> None:
    connection = HTTPConnection("127.0.0.1", engine.port)
    body = json.dumps({"prompt": "Hi", **extra_body("village", "Ada")}, separators=(",", ":"))
    connection.request("POST", "/v1/completions", body, extra_headers("village", "Ada"))
    assert connection.getresponse().read() == ANSWER
    connection.close()
    assert engine.bodies == [b'{"prompt":"Hi","session_id":"village/Ada"}']
    assert engine.headers[0]["X-Session-ID"] == engine.headers[0]["X-Agent-Id"] == "village/Ada"


@pytest.mark.parametrize(("simulation", "agent"), [("", "a"), ("s", ""), ("s/t", "a"), ("s", "x" * 257)])
def test_names_that_cannot_be_are_refused(simulation: str, agent: str) -> None:
    with pytest.raises(ValueError):
        agent_key(simulation, agent)


def test_an_agent_may_have_a_slash() -> None:
    assert agent_key("s", "group/1") == "s/group/1"
