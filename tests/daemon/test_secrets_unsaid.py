"""What must stay secret is in no line of a daemon's log, at its most talkative; and no code runs what it was sent."""

from __future__ import annotations

import ast
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from bench.rig.process import free_port
from scalesim_client.curve import make_keys

ROOT = Path(__file__).parents[2]
SOURCES = ("client", "estimators", "adapters", "daemon", "bench")
WITHIN = 30.0
TOKENS = {role: f"{role}-0123456789abcdef" for role in ("viewer", "publisher", "admin")}
PROMPT = "the fountain is where the gold lies"
# Functions that make code or objects of what they are given, and the one use that reads nothing: vLLM's own hash of a
# block is that of pickled bytes.
RUNNING = re.compile(
    r"(pickle|marshal|shelve|dill|cloudpickle)\.\w+|eval|exec|compile|__import__|yaml\.(unsafe_|full_)?load(_all)?"
)
MENTIONS = re.compile(r"pickle|marshal|shelve|dill|yaml|shell|\b(eval|exec|compile|__import__)\(")
ALLOWED = {("adapters/scalesim_adapters/emulator/chain.py", "pickle.dumps")}


def test_a_daemon_s_whole_log_holds_no_secret(tmp_path: Path) -> None:
    port, (_, curve_secret) = free_port(), make_keys(tmp_path, "feed")
    (tmp_path / "clients").mkdir()
    (tmp_path / "admin").write_text(TOKENS["admin"])
    config = tmp_path / "scalesim.yaml"
    config.write_text(
        f"""
feed:
  bind: tcp://127.0.0.1:*
  curve: {{server_key_file: {curve_secret}, clients_dir: {tmp_path}/clients}}
broadcast: {{bind: null}}
api: {{port: {port}, admin_token_file: {tmp_path}/admin}}
redis: {{enabled: false}}
loras: {{links_dir: {tmp_path}/links, staging_dir: {tmp_path}/staging}}
engines: [{{kind: vllm, url: "http://127.0.0.1:9", name: gone}}]
log: {{level: debug, format: json}}
"""
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SCALESIM_")}
    environment |= {f"SCALESIM_API__{role.upper()}_TOKEN": TOKENS[role] for role in ("viewer", "publisher")}
    command = [str(Path(sys.executable).with_name("scalesimd")), "serve", "--config", str(config)]
    log = tmp_path / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env=environment)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5.0) as client:
            _until(lambda: _answers(client), log)
            for token in TOKENS.values():
                headers = {"authorization": f"Bearer {token}"}
                bound = {"type": "memory.bound", "agent": "rosa", "text": PROMPT}
                odd = {"type": "memory.bound", "agent": "rosa", "text": PROMPT, "messages": []}
                client.post("/v1/events", json=[0, [bound, odd]], headers=headers)
                client.get("/v1/agents", headers=headers)
                client.post("/v1/config/reload", headers=headers)
                client.get("/v1/report", headers={"authorization": f"Bearer {token}x"})
                client.get(f"/v1/report?token={token}", headers={"authorization": f"Basic {token}"})
            config.write_text(
                f"api: {{admin_token: {TOKENS['admin']}, admin_token_file: {tmp_path}/admin}}\n"
            )
            process.send_signal(signal.SIGHUP)
            _until(lambda: "admin_token" in log.read_text(), log)
    finally:
        process.terminate()
        process.wait(WITHIN)
    said = log.read_text()
    assert "ready" in said and process.returncode == 0
    secrets = [
        *TOKENS.values(),
        curve_secret.read_text().rpartition('secret-key = "')[2].strip().strip('"'),
        PROMPT,
    ]
    assert [secret for secret in secrets if secret in said] == []


def test_no_code_runs_what_it_was_sent() -> None:
    found = {
        (str(file.relative_to(ROOT)), call)
        for folder in SOURCES
        for file in sorted((ROOT / folder).rglob("*.py"))
        if MENTIONS.search(code := file.read_text(encoding="utf-8"))
        for call in _calls(ast.parse(code))
        if RUNNING.fullmatch(call)
    }
    assert found == ALLOWED


def test_what_runs_code_is_told_from_what_does_not() -> None:
    code = "eval('1')\npickle.loads(b'')\nre.compile('a')\nyaml.safe_load('')\nyaml.load('')\nself.exec()"
    assert [call for call in _calls(ast.parse(code)) if RUNNING.fullmatch(call)] == [
        "eval",
        "pickle.loads",
        "yaml.load",
    ]


def _calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)
            for keyword in node.keywords:
                # Whatever a shell is given, it runs.
                if keyword.arg == "shell" and not (
                    isinstance(keyword.value, ast.Constant) and keyword.value.value is False
                ):
                    yield "exec"


def _answers(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.HTTPError:
        return False


def _until(holds: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + WITHIN
    while not holds():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
