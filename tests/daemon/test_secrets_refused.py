"""Where a daemon's secrets are refused, and where others bring wrong ones, none is told: not in its log at its most
talkative, not by its API, and not by `scalesimctl`."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import zmq
from typer.testing import CliRunner

from bench.rig.process import free_port
from scalesim_client import Curve
from scalesim_client.curve import make_keys
from scalesim_daemon.ctl.app import app as scalesimctl
from tests.daemon.stores import server_binary

WITHIN = 30.0
SECRETS = {
    name: f"{name}-of-mine-hunter2" for name in ("admin", "viewer", "redis", "engine", "query", "otel")
}
WRONG = {name: f"{name}-of-theirs-hunter2" for name in ("admin", "caller", "asker")}
KINDS = ("vllm", "sglang", "openai")


class Refusing(BaseHTTPRequestHandler):
    """An engine that lets nobody in."""

    def do_GET(self) -> None:
        self.send_error(401, "Unauthorized")

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def refusing_engine() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def started(*command: str, log: Path, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command whose output goes to a file; end it by SIGTERM."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SCALESIM_")}
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env=environment | variables)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(WITHIN)


def test_what_is_refused_is_not_told(tmp_path: Path) -> None:
    api, gateway, store, feed = (free_port() for _ in range(4))
    (server, *keys), (_, village), (_, stranger) = (
        make_keys(tmp_path, name) for name in ("feed", "village", "stranger")
    )
    keys += [village, stranger]
    clients = tmp_path / "clients"
    clients.mkdir()
    # Whoever takes the wrong one of the two files.
    shutil.copy(village, clients / "village.key")
    log = tmp_path / "log"
    with ExitStack() as stack:
        engine = stack.enter_context(refusing_engine())
        (tmp_path / "admin").write_text(SECRETS["admin"])
        engines = "".join(
            f"  - {{kind: {kind}, name: {kind}, "
            f'url: "http://operator:{SECRETS["engine"]}@127.0.0.1:{engine}/?key={SECRETS["query"]}"}}\n'
            for kind in KINDS
        )
        config = tmp_path / "scalesim.yaml"
        config.write_text(
            f"feed: {{bind: 'tcp://127.0.0.1:{feed}',"
            f" curve: {{server_key_file: {keys[0]}, clients_dir: {clients}}}}}\n"
            f"broadcast: {{bind: null}}\n"
            f"api: {{port: {api}, admin_token_file: {tmp_path}/admin}}\n"
            f"gateway: {{enabled: true, port: {gateway}}}\n"
            f'redis: {{url: "redis://operator:{SECRETS["redis"]}@127.0.0.1:{store}/0"}}\n'
            f"fleet: {{enabled: true, name: one}}\n"
            f"loras: {{links_dir: {tmp_path}/links, staging_dir: {tmp_path}/staging}}\n"
            f"engines:\n{engines}"
            "log: {level: debug, format: console}\n"
        )
        valkey = ("--port", str(store), "--bind", "127.0.0.1", "--save", "", "--requirepass", "another")
        stack.enter_context(started(server_binary(), *valkey, log=tmp_path / "valkey"))
        daemon = stack.enter_context(
            started(
                *(str(Path(sys.executable).with_name("scalesimd")), "serve", "--config", str(config)),
                log=log,
                SCALESIM_API__VIEWER_TOKEN=SECRETS["viewer"],
                OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{engine}",
                OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer%20{SECRETS['otel']}",
            )
        )
        told = asked(f"http://127.0.0.1:{api}", f"http://127.0.0.1:{gateway}", log)
        knock(f"tcp://127.0.0.1:{feed}", Curve.load(stranger, server), log)
        until(lambda: "Redis is away" in log.read_text() and log.read_text().count("401") >= len(KINDS), log)
    assert daemon.returncode == 0
    plain = [*SECRETS.values(), *WRONG.values(), *map(secret_in, keys)]
    coded = [base64.b64encode(f"operator:{secret}".encode()).decode() for secret in SECRETS.values()]
    for text in (log.read_text(), *told):
        assert [secret for secret in (*plain, *coded) if secret in text] == [], text


def asked(api: str, gateway: str, log: Path) -> list[str]:
    """Return all that a daemon answers to those whom it knows and those whom it doesn't."""
    told: list[str] = []
    with httpx.Client(timeout=WITHIN) as client:

        def answers() -> bool:
            try:
                return client.get(f"{api}/health").status_code == 200
            except httpx.HTTPError:
                return False

        until(answers, log)
        paths = client.get(f"{api}/openapi.json").json()["paths"]
        reads = [path for path, methods in paths.items() if "get" in methods and not path.endswith("stream")]
        for token, some in ((SECRETS["admin"], reads), (WRONG["admin"], reads[-2:])):
            bearer = {"authorization": f"Bearer {token}"}
            for path in some:
                place = path.format(simulation="town", agent="rosa", identity="1")
                told.append(client.get(api + place, headers=bearer).text)
            told.append(client.post(f"{api}/v1/config/reload", headers=bearer).text)
            told.append(client.get(f"{api}/v1/role?token={token}", headers={"authorization": token}).text)
        asking = {"authorization": f"Bearer {WRONG['caller']}"}
        body = {"model": "base", "prompt": "hello", "user": "town/rosa"}
        told.append(client.post(f"{gateway}/v1/completions", json=body, headers=asking).text)
    for token, words in (
        (SECRETS["viewer"], "engines"),
        (SECRETS["viewer"], "pause"),
        (WRONG["asker"], "status"),
    ):
        asker = CliRunner().invoke(scalesimctl, [*words.split(), "--url", api], env={"SCALESIM_TOKEN": token})
        told.append(asker.output)
    return told


def knock(address: str, curve: Curve, log: Path) -> None:
    """Knock with a key that isn't known."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.CURVE_SERVERKEY, curve.server)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, curve.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, curve.secret)
        socket.connect(address)
        until(lambda: "connection refused: its key is not known" in log.read_text(), log)


def secret_in(file: Path) -> str:
    return file.read_text().rpartition('secret-key = "')[2].strip().strip('"')


def until(holds: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + WITHIN
    while not holds():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
