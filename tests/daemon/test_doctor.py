"""The doctor: what an engine allows, what to add, and what is said where there is no such engine."""

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from scalesim_adapters.base import Capability, MemoryKind
from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer
from scalesim_adapters.emulator.faults import Status
from scalesim_daemon.doctor import NOTHING, Diagnosis, UnusableUrl, abilities, examine
from tests.daemon.live import emulator

SGLANG = Path(__file__).parents[1] / "adapters" / "golden" / "sglang-0.5.23.json"


def examined(url: str) -> Diagnosis:
    return asyncio.run(examine(url))


@contextmanager
def answering(body: bytes, status: int = 200, kind: str = "application/json") -> Iterator[str]:
    """Serve the same answer at every route."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(Handler) as url:
        yield url


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve with a handler."""
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_an_engine_that_allows_all_lacks_nothing(tmp_path: Path) -> None:
    with emulator(tmp_path) as engine:
        found = examined(f"{engine.url}/")
    assert found.info is not None and found.problem is None
    assert found.url == engine.url
    assert found.info.missing == ()
    able = abilities(found.info)
    assert len(able[MemoryKind.PREFIX_KV]) == 3 and len(able[MemoryKind.LORA]) == 2
    assert able[MemoryKind.MODEL] == [NOTHING]


def test_a_bare_engine_is_described_with_the_exact_flags_to_add() -> None:
    with EmulatorServer(EmulatorConfig(max_loras=0)) as engine:
        found = examined(engine.url)
    assert found.info is not None
    assert found.info.capabilities[MemoryKind.PREFIX_KV] == Capability.LOAD
    assert abilities(found.info)[MemoryKind.LORA] == [NOTHING]
    remedies = {missing.what: missing.remedy for missing in found.info.missing}
    assert "--kv-events-config" in remedies["KV events"]
    assert "--enable-lora" in remedies["LoRA"]


def test_nobody_there() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        found = examined(f"http://127.0.0.1:{bound.getsockname()[1]}")
    assert found.info is None and not found.answered
    assert found.remedy is not None and "start the engine" in found.remedy


OTHERS: list[tuple[bytes, int, str]] = [
    (b"<html>It works</html>", 200, "text/html"),
    (b'{"detail": "Not Found"}', 404, "application/json"),
    (b"[]", 200, "application/json"),
    (b"{}", 200, "application/json"),
    (b'{"version": 7, "data": [{"id": 3}]}', 200, "application/json"),
    (b"null", 200, "application/json"),
    (b"\xff\xfe", 200, "text/plain"),
]


def test_a_server_of_no_known_kind_that_lists_its_models_gets_tiny_requests() -> None:
    with answering(b'{"version": "9", "data": [{"id": "m"}]}') as url:
        found = examined(url)
    assert found.info is not None
    assert (found.info.engine, found.info.base_models) == ("openai", ("m",))
    assert any("prompt_slots" in missing.remedy for missing in found.info.missing)


@pytest.mark.parametrize(("body", "status", "kind"), OTHERS)
def test_some_other_server(body: bytes, status: int, kind: str) -> None:
    with answering(body, status, kind) as url:
        found = examined(url)
    assert found.info is None and found.answered
    assert found.problem
    assert found.remedy is not None and "no OpenAI-compatible" in found.remedy


def test_an_sglang_is_known_by_its_own_routes() -> None:
    golden = json.loads(SGLANG.read_text())
    answers = {(answer["method"], answer["path"]): answer["body"] for answer in golden["http"]}
    answers["GET", "/server_info"] = {
        **golden["server_info"],
        "enable_metrics": False,
        "kv_events_config": None,
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = answers.get((self.command, self.path))
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(body or {"detail": "Not Found"}).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(Handler) as url:
        found = examined(url)
    assert found.info is not None and found.problem is None
    assert (found.info.engine, found.info.version, found.info.block_size) == ("sglang", "0.5.23", 32)
    remedies = " ".join(missing.remedy for missing in found.info.missing)
    assert "--kv-events-config" in remedies and "--enable-metrics" in remedies


def test_a_server_that_wants_a_key() -> None:
    with answering(b'{"error": {"message": "Unauthorized"}}', 401) as url:
        found = examined(url)
    assert found.info is None and found.answered
    assert found.remedy is not None and "API key" in found.remedy


def test_an_engine_that_fails(tmp_path: Path) -> None:
    with emulator(tmp_path) as engine:
        engine.inject(Status("/version", 500, times=9))
        found = examined(engine.url)
    assert found.info is None
    assert found.problem is not None and "500" in found.problem


@pytest.mark.parametrize(
    "url", ["", "engine", "ftp://host", "http://", "http://[::1", "http://host:port", "http://a b"]
)
def test_no_url_at_all(url: str) -> None:
    with pytest.raises(UnusableUrl):
        examined(url)


def test_the_diagnosis_is_plain_data(tmp_path: Path) -> None:
    with emulator(tmp_path) as engine:
        plain = examined(engine.url).to_json()
    assert plain["info"]["capabilities"]["lora"] == ["load", "list"]
    assert plain["answered"] is True
