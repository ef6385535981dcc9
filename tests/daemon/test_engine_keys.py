"""A server that was started with an API key is asked with it, and nobody else is told it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from scalesim_adapters.base import EngineError
from scalesim_daemon.admin.reload import shown
from scalesim_daemon.ctl.app import app
from scalesim_daemon.doctor import examine
from scalesim_daemon.engines import connect
from scalesim_daemon.setting_sources import load_settings
from scalesim_daemon.settings import ConfigError, EngineSettings
from scalesim_daemon.whatif.calibrate import CalibrationError, Programme, measure, prepare
from tests.daemon.gateway_rig import beside, front
from tests.daemon.still import INFO

KEY = "sk-of-mine-hunter2"
KINDS = ("vllm", "sglang", "openai")


@contextmanager
def asked() -> Iterator[tuple[str, list[str | None]]]:
    """Yield the URL of an engine that refuses everybody, and what it is told of who asks."""
    heard: list[str | None] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers["authorization"])
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", heard
    finally:
        server.shutdown()
        server.server_close()


def test_doctor_and_calibration_ask_with_the_key_that_a_file_has(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    with asked() as (url, heard):
        found = asyncio.run(examine(url, tmp_path / "key"))
        assert found.info is None and set(heard) == {f"Bearer {KEY}"}
        heard.clear()
        asyncio.run(examine(url))
        assert set(heard) == {None}
        programme = Programme(url, "vllm", tmp_path / "key", INFO, 16, 4096, (64, 128))
        for asking in (prepare(url, tmp_path / "key"), measure(programme, str)):
            heard.clear()
            with pytest.raises(CalibrationError):
                asyncio.run(asking)
            assert set(heard) == {f"Bearer {KEY}"}
    (tmp_path / "key").write_text("two words\n")
    done = CliRunner().invoke(app, ["doctor", url, "--api-key-file", str(tmp_path / "key")])
    assert done.exit_code == 2 and "api_key_file" in done.output and "two words" not in done.output


def engine(**given: Any) -> EngineSettings:
    (one,) = load_settings(None, {"engines": [{"url": "http://127.0.0.1:9", "name": "one", **given}]}).engines
    return one


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["api_key", "api_key_file", None])
def test_each_kind_is_asked_with_its_key(kind: str, where: str | None, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    given = {"api_key": KEY, "api_key_file": str(tmp_path / "key")}

    async def ask(url: str) -> None:
        adapter = connect(engine(kind=kind, url=url, **({where: given[where]} if where else {})))
        with pytest.raises(EngineError):
            await adapter.probe()
        await adapter.close()

    with asked() as (url, heard):
        asyncio.run(ask(url))
    assert set(heard) == {f"Bearer {KEY}" if where else None}


def test_who_calls_through_the_gateway_brings_a_key_of_their_own(tmp_path: Path) -> None:
    async def scene(url: str) -> None:
        sidecar = beside(tmp_path, url)
        keyed = tuple(one.model_copy(update={"api_key": SecretStr(KEY)}) for one in sidecar.settings.engines)
        sidecar.settings = sidecar.settings.model_copy(update={"engines": keyed})
        async with front(sidecar) as client:
            for headers in ({}, {"authorization": "Bearer theirs"}):
                assert (await client.get("/v1/models", headers=headers)).status_code == 401

    with asked() as (url, heard):
        asyncio.run(scene(url))
    assert heard == [None, "Bearer theirs"]


def test_it_is_shown_nowhere() -> None:
    settings = load_settings(None, {"engines": [{"url": "http://127.0.0.1:9", "api_key": KEY}]})
    said = json.dumps(shown(settings.model_dump(mode="json")))
    assert "api_key" in said and KEY not in f"{said} {settings!r} {settings}"


@pytest.mark.parametrize("key", ["", "two words", "ключ", "a\nb", "x" * 513])
def test_what_no_header_takes_is_refused_and_not_told(key: str, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(key)
    for given in ({"api_key": key}, {"api_key_file": tmp_path / "key"}):
        with pytest.raises(ConfigError, match="engines: one: api_key") as refused:
            connect(engine(**given))
        assert not key or key not in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"\xff")
    for file, why in (("none", "No such file"), ("key", "is no text")):
        with pytest.raises(ConfigError, match=f"engines: one: api_key_file: .*{why}"):
            connect(engine(api_key_file=tmp_path / file))


@pytest.mark.parametrize(
    "given",
    [
        {"api_key": KEY, "api_key_file": "/run/key"},
        {"api_key": KEY, "url": "http://operator:hunter3@127.0.0.1:9"},
    ],
)
def test_who_the_daemon_is_is_said_once(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"api_key and .* say who the daemon is") as refused:
        engine(**given)
    assert "hunter" not in str(refused.value)
