"""The server over HTTP and ZeroMQ: requests that share the engine, the feed, and every fault."""

import contextlib
import json
import socket
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import httpx
import pytest

from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer
from scalesim_adapters.emulator.__main__ import main
from scalesim_adapters.emulator.faults import Delay, Die, Hang, LoseBatches, Restart, Stall, Status
from tests.adapters.emulator_rig import WITHIN, feed_config, listening, make_lora, metric, until

BLOCK = 32
MOST_OPEN = 200


@pytest.fixture
def config(tmp_path: Path) -> EmulatorConfig:
    return feed_config(tmp_path, block_size=BLOCK, max_num_batched_tokens=4 * BLOCK)


@pytest.fixture
def server(config: EmulatorConfig) -> Iterator[EmulatorServer]:
    with EmulatorServer(config) as server:
        yield server


@pytest.fixture
def http(server: EmulatorServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=WITHIN) as http:
        yield http


@pytest.fixture(scope="module")
def shared() -> Iterator[httpx.Client]:
    """A server for tests that leave nothing behind."""
    with EmulatorServer() as server, httpx.Client(base_url=server.url, timeout=WITHIN) as http:
        yield http


def body(first: int, tokens: int, **fields: Any) -> dict[str, Any]:
    return {"model": "base", "prompt": list(range(first, first + tokens)), "max_tokens": 1, **fields}


def complete(http: httpx.Client, first: int, tokens: int, **fields: Any) -> dict[str, Any]:
    answer = http.post("/v1/completions", json=body(first, tokens, **fields))
    answer.raise_for_status()
    return answer.json()


def health(url: str) -> int | None:
    """Return the status, None where nothing answers."""
    try:
        return httpx.get(f"{url}/health").status_code
    except httpx.TransportError:
        return None


def cached(answer: dict[str, Any]) -> int:
    count: int = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    return count


def test_it_says_that_it_is_emulated(shared: httpx.Client) -> None:
    assert shared.get("/version").json() == {"version": "0.32.0+emulated"}
    assert "emulated" in complete(shared, 0, 5)["system_fingerprint"]


def test_waiting_and_running_requests_are_counted(server: EmulatorServer, http: httpx.Client) -> None:
    server.inject(Stall())
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(complete, http, 1000 * index, 100, max_tokens=2) for index in range(3)]
        until(lambda: metric(http, "vllm:num_requests_waiting") == 3)
        server.inject(Stall(steps=1))
        until(lambda: metric(http, "vllm:num_requests_running") == 2)
        assert metric(http, "vllm:num_requests_waiting") == 1
        assert metric(http, "vllm:kv_cache_usage_perc") == pytest.approx(5 / 256)
        server.heal()
        assert [cached(answer.result(WITHIN)) for answer in asked] == [0, 0, 0]
    assert metric(http, "vllm:request_success_total") == 3
    assert metric(http, "vllm:num_requests_running") == 0


@pytest.mark.parametrize("stream", [True, False])
def test_a_closed_connection_ends_the_work_and_keeps_its_chunks(
    server: EmulatorServer, http: httpx.Client, config: EmulatorConfig, stream: bool
) -> None:
    leaving = HTTPConnection("127.0.0.1", server.port)
    with listening(config, http) as feed:
        server.inject(Stall(steps=2))
        leaving.request(
            "POST", "/v1/completions", json.dumps(body(0, 1000, stream=stream, session_id="leaving"))
        )
        events = feed.batch()[1] + feed.batch()[1]
        assert [len(event["block_hashes"]) for event in events] == [4, 4]
        assert {event["session_id"] for event in events} == {"leaving"}
        leaving.close()

    def gone() -> bool:
        server.inject(Stall(steps=1))
        return metric(http, "vllm:num_requests_running") == 0

    until(gone)
    server.heal()
    ended = metric(http, "vllm:request_success_total")
    assert 8 * BLOCK <= cached(complete(http, 0, 1000)) < 1000 // BLOCK * BLOCK
    assert metric(http, "vllm:request_success_total") == ended + 1


def test_sessions_come_from_the_body_a_header_or_extra_arguments(
    http: httpx.Client, config: EmulatorConfig
) -> None:
    with listening(config, http) as feed:
        complete(http, 0, 40, session_id="body")
        http.post(
            "/v1/completions", json=body(1000, 40), headers={"X-Session-ID": "header"}
        ).raise_for_status()
        complete(http, 2000, 40, vllm_xargs={"session_id": "extra"})
        complete(http, 3000, 40)
        assert [feed.batch()[1][0].get("session_id") for _ in range(4)] == ["body", "header", "extra", None]


def test_priority_decides_who_is_admitted(http: httpx.Client, tmp_path: Path) -> None:
    config = feed_config(tmp_path / "priority", max_num_seqs=1)
    (tmp_path / "priority").mkdir()
    with (
        EmulatorServer(config) as server,
        httpx.Client(base_url=server.url) as http,
        listening(config, http) as feed,
        ThreadPoolExecutor(3) as pool,
    ):
        server.inject(Stall())
        for index, priority in enumerate([5, 10, -1]):
            pool.submit(complete, http, 1000 * index, 40, priority=priority, session_id=str(priority))
        until(lambda: metric(http, "vllm:num_requests_waiting") == 3)
        server.heal()
        assert [feed.batch()[1][0]["session_id"] for _ in range(3)] == ["-1", "5", "10"]


def test_a_conversation_is_tokenized_as_it_is_answered(shared: httpx.Client) -> None:
    messages = [{"role": "system", "content": "the baker"}, {"role": "user", "content": [{"text": "hello"}]}]
    counted = shared.post("/tokenize", json={"model": "base", "messages": messages}).json()
    answer = shared.post(
        "/v1/chat/completions", json={"messages": messages, "max_completion_tokens": 2}
    ).json()
    assert answer["usage"]["prompt_tokens"] == counted["count"] == len(counted["tokens"])
    assert answer["usage"]["completion_tokens"] == len(answer["choices"][0]["message"]["content"]) == 2
    text = shared.post("/tokenize", json={"prompt": "bäcker"}).json()
    assert text["tokens"] == [byte + 3 for byte in "bäcker".encode()]


def test_tools_stand_before_the_conversation_and_are_never_called(shared: httpx.Client) -> None:
    chat = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 2}
    tools = [{"type": "function", "function": {"name": "like"}}]
    plain = shared.post("/tokenize", json=chat).json()["tokens"]
    answer = shared.post("/v1/chat/completions", json={**chat, "tools": tools}).json()
    assert answer["usage"]["prompt_tokens"] == len(plain) + len(json.dumps(tools))
    assert len(answer["choices"][0]["message"]["content"]) == 2
    called = shared.post("/v1/chat/completions", json={**chat, "tools": tools, "tool_choice": "required"})
    assert called.status_code == 400 and "calls no tools" in called.json()["error"]["message"]


@pytest.mark.parametrize(
    ("request_body", "status"),
    [
        (b"not json", 400),
        (b"[1]", 400),
        (b'{"model": "base"}', 400),
        (b'{"model": "base", "prompt": [1, "two"]}', 400),
        (b'{"model": "base", "prompt": [[1, 2], [3]]}', 400),
        (b'{"model": "base", "prompt": [1], "max_tokens": "many"}', 400),
        (b'{"model": "base", "prompt": [1], "n": 2}', 400),
        (b'{"model": "base", "prompt": [1], "logprobs": 3}', 400),
        (b'{"model": "base", "prompt": [1], "priority": 1.5}', 400),
        (b'{"model": "base", "prompt": [1], "vllm_xargs": 7}', 400),
        (b'{"model": "base", "prompt": [1], "session_id": 7}', 400),
        (b'{"model": ["base"], "prompt": [1]}', 400),
        (b'{"model": "nobody", "prompt": [1]}', 404),
        (b'{"model": "base", "prompt": [[1, 2]]}', 200),
        (b'{"model": "base", "prompt": ["text"], "session_id": null}', 200),
    ],
)
def test_bodies_are_answered_or_refused(shared: httpx.Client, request_body: bytes, status: int) -> None:
    answer = shared.post("/v1/completions", content=request_body)
    assert answer.status_code == status
    if status != 200:
        assert answer.json()["error"]["code"] == status
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


def test_losing_batches_leaves_a_gap_that_a_replay_fills(
    server: EmulatorServer, http: httpx.Client, config: EmulatorConfig
) -> None:
    with listening(config, http) as feed:
        complete(http, 0, 40)
        server.inject(LoseBatches(times=2))
        for index in range(1, 4):
            complete(http, 1000 * index, 40)
        before = feed.batch()[0]
        assert feed.batch()[0] == before + 3
        replayed = feed.replayed(before + 1)
        assert [number for number, _ in replayed] == [before + 1, before + 2, before + 3]
        assert [events[0]["token_ids"][0] for _, events in replayed] == [1000, 2000, 3000]


def test_a_replay_has_the_last_batches_only(tmp_path: Path) -> None:
    config = feed_config(tmp_path, buffer_steps=2)
    with (
        EmulatorServer(config) as server,
        httpx.Client(base_url=server.url) as http,
        listening(config, http) as feed,
    ):
        for index in range(4):
            complete(http, 1000 * index, 40)
        assert [number for number, _ in feed.replayed(0)] == [feed.last + 3, feed.last + 4]
        assert feed.replayed(feed.last + 5) == []


def test_routes_fail_hang_and_wait_as_often_as_asked(server: EmulatorServer, http: httpx.Client) -> None:
    server.inject(Status("/v1/models", 503, times=2))
    server.inject(Hang("/v1/models"))
    server.inject(Delay("/health", seconds=0.1))
    assert [http.get("/v1/models").status_code for _ in range(2)] == [503, 503]
    with pytest.raises(httpx.ReadTimeout):
        http.get("/v1/models", timeout=0.1)
    assert http.get("/v1/models").status_code == 200
    assert http.get("/health").elapsed.total_seconds() >= 0.1
    server.inject(Status("/v1/models", times=100))
    assert http.get("/emulator/faults").json() == [
        {"type": "status", "route": "/v1/models", "status": 500, "times": 100}
    ]
    assert http.get("/v1/models").json()["error"]["code"] == 500
    server.heal()
    assert http.get("/v1/models").status_code == 200


def test_unknown_faults_are_refused(server: EmulatorServer, http: httpx.Client) -> None:
    assert http.post("/emulator/faults", json={"type": "earthquake"}).status_code == 422
    with EmulatorServer() as silent, pytest.raises(HTTPError, match="422"):
        silent.inject(LoseBatches())


def test_a_restart_loses_everything_and_counts_from_0(
    server: EmulatorServer, http: httpx.Client, config: EmulatorConfig, tmp_path: Path
) -> None:
    lora = {"lora_name": "lora", "lora_path": str(make_lora(tmp_path / "lora"))}
    assert http.post("/v1/load_lora_adapter", json=lora).status_code == 200
    complete(http, 0, 100)
    assert cached(complete(http, 0, 100)) == 96
    started = metric(http, "process_start_time_seconds")
    server.inject(Stall())
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(complete, http, 0, 100)
        with httpx.Client(base_url=server.url) as other:
            until(lambda: metric(other, "vllm:num_requests_waiting") == 1)
            server.inject(Restart())
            assert isinstance(asked.exception(WITHIN), httpx.TransportError)

    def back() -> bool:
        try:
            return metric(http, "process_start_time_seconds") > started
        except httpx.TransportError:
            return False

    until(back)
    assert [card["id"] for card in http.get("/v1/models").json()["data"]] == ["base"]
    assert cached(complete(http, 0, 100)) == 0
    assert metric(http, "vllm:request_success_total") == 1
    with listening(config, http) as feed:
        number, events = feed.replayed(0)[0]
        assert (number, len(events[0]["block_hashes"])) == (0, 3)


@pytest.mark.parametrize("_", range(3))
def test_no_connection_outlives_the_engine_that_took_it(_: int, server: EmulatorServer) -> None:
    """Also none of those that are taken while the server ends: on them the old engine would go on answering."""

    def answers(connection: socket.socket) -> bool:
        connection.settimeout(WITHIN)
        try:
            connection.sendall(b"GET /health HTTP/1.1\r\nhost: engine\r\n\r\n")
            return connection.recv(1) != b""
        except ConnectionError:
            return False

    server.inject(Restart())
    with contextlib.ExitStack() as stack:
        latest: deque[socket.socket] = deque()
        with contextlib.suppress(ConnectionRefusedError):
            while True:
                latest.append(socket.create_connection(("127.0.0.1", server.port)))
                if len(latest) > MOST_OPEN:
                    latest.popleft().close()
        for connection in latest:
            stack.enter_context(connection)
        until(lambda: health(server.url) == 200)
        assert sum(map(answers, latest)) == 0


def test_it_dies_and_starts_again_at_the_same_port(config: EmulatorConfig) -> None:
    with EmulatorServer(config) as server:
        url = server.url
        server.inject(Die())

        until(lambda: health(url) != 200)
        server.restart()
        assert server.url == url
        assert health(url) == 200
        server.kill()
        assert health(url) is None
        server.kill()


def test_a_request_whose_lora_is_gone_ends_the_server(tmp_path: Path) -> None:
    config = EmulatorConfig(max_loras=1, max_cpu_loras=1)
    paths = [make_lora(tmp_path / f"lora{index}") for index in range(2)]
    with EmulatorServer(config) as server, httpx.Client(base_url=server.url) as http:
        for path in paths:
            load = {"lora_name": path.name, "lora_path": str(path)}
            assert http.post("/v1/load_lora_adapter", json=load).status_code == 200
        (paths[0] / "adapter_config.json").unlink()
        assert http.post("/v1/completions", json=body(0, 5, model="lora1")).status_code == 200
        answer = http.post("/v1/completions", json=body(0, 5, model="lora0"))
        assert answer.status_code == 500
        assert "EngineCore encountered an issue" in answer.json()["error"]["message"]

        until(lambda: health(server.url) is None)


def test_a_taken_port_is_an_error(server: EmulatorServer) -> None:
    with pytest.raises(OSError, match="in use"):
        EmulatorServer(port=server.port).start()


def test_flags_are_named_as_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    flags = capsys.readouterr().out
    for flag in (
        "--blocks",
        "--block-size",
        "--max-loras",
        "--time-scale",
        "--cost-prefill-token",
        "--dev-mode",
    ):
        assert flag in flags
    with pytest.raises(ValueError, match="scheduling_policy"):
        main(["--scheduling-policy", "lifo"])
