"""What must stay secret is nowhere in what a daemon says, at its most talkative: its log, its metrics, its answers, and
those of `scalesimctl`; and no code runs what it was sent."""

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
from typer.testing import CliRunner

from bench.rig.process import free_port
from scalesim_client.curve import make_keys
from scalesim_daemon.ctl.app import app as scalesimctl

ROOT = Path(__file__).parents[2]
SOURCES = ("client", "estimators", "adapters", "daemon", "bench", "examples")
WITHIN = 30.0
TOKENS = {role: f"{role}-0123456789abcdef" for role in ("viewer", "publisher", "admin")}
PASSWORDS = {
    name: f"{name}-hunter2hunter2" for name in ("redis", "vllm", "sglang", "key", "openai", "caller")
}
PROMPT = "the fountain is where the gold lies"
SALT = "salt-of-the-earth"
# Functions that make code or objects of what they are given, and the one use that reads nothing: vLLM's own hash of a
# block is that of pickled bytes.
RUNNING = re.compile(
    r"(pickle|marshal|shelve|dill|cloudpickle)\.\w+|eval|exec|compile|__import__|yaml\.(unsafe_|full_)?load(_all)?"
)
MENTIONS = re.compile(r"pickle|marshal|shelve|dill|yaml|shell|\b(eval|exec|compile|__import__)\(")
ALLOWED = {("adapters/scalesim_adapters/emulator/chain.py", "pickle.dumps")}


def test_nothing_that_a_daemon_says_holds_a_secret(tmp_path: Path) -> None:
    port, gateway, nowhere = free_port(), free_port(), free_port()
    keys = {name: make_keys(tmp_path, name)[1] for name in ("feed", "dues")}
    (tmp_path / "clients").mkdir()
    (tmp_path / "admin").write_text(TOKENS["admin"])
    config = tmp_path / "scalesim.yaml"
    config.write_text(
        f"""
feed:
  bind: tcp://127.0.0.1:*
  curve: {{server_key_file: {keys["feed"]}, clients_dir: {tmp_path}/clients}}
broadcast:
  bind: tcp://127.0.0.1:*
  curve: {{server_key_file: {keys["dues"]}, clients_dir: {tmp_path}/clients}}
api: {{port: {port}, admin_token_file: {tmp_path}/admin}}
gateway: {{enabled: true, port: {gateway}}}
redis: {{url: "redis://operator:{PASSWORDS["redis"]}@127.0.0.1:{nowhere}/0"}}
loras: {{links_dir: {tmp_path}/links, staging_dir: {tmp_path}/staging}}
engines:
  - {{kind: vllm, url: "http://operator:{PASSWORDS["vllm"]}@127.0.0.1:{nowhere}", name: one}}
  - {{kind: sglang, url: "http://127.0.0.1:{nowhere}/?key={PASSWORDS["sglang"]}", name: two,
     api_key: {PASSWORDS["key"]}}}
  - {{kind: openai, url: "http://operator:{PASSWORDS["openai"]}@127.0.0.1:{nowhere}", name: three}}
log: {{level: debug, format: json}}
"""
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SCALESIM_")}
    environment |= {f"SCALESIM_API__{role.upper()}_TOKEN": TOKENS[role] for role in ("viewer", "publisher")}
    command = [str(Path(sys.executable).with_name("scalesimd")), "serve", "--config", str(config)]
    log, answers = tmp_path / "log", []
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env=environment)
    try:
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, timeout=5.0) as client:
            _until(lambda: _answers(client), log)
            paths = [
                path
                for path, methods in client.get("/openapi.json").json()["paths"].items()
                if "get" in methods
            ]
            for token in TOKENS.values():
                headers = {"authorization": f"Bearer {token}"}
                bound = {"type": "memory.bound", "agent": "rosa", "text": PROMPT, "cache_salt": SALT}
                odd = {
                    "type": "memory.bound",
                    "agent": "rosa",
                    "text": PROMPT,
                    "messages": [],
                    "cache_salt": SALT,
                }
                answers += [
                    client.post("/v1/events", json=[0, [bound, odd]], headers=headers),
                    client.post("/v1/events", content=f'{{"text": "{PROMPT}', headers=headers),
                    client.post("/v1/config/reload", headers=headers),
                    client.post("/v1/prefetch", json={"key": SALT, "salt": SALT}, headers=headers),
                    client.get("/v1/report", headers={"authorization": f"Bearer {token}x"}),
                    client.get(f"/v1/report?token={token}", headers={"authorization": f"Basic {token}"}),
                    client.get(f"/v1/{token}", headers=headers),
                ]
                for path in paths:
                    asked = path.format(simulation="anonymous", agent="rosa", identity="1")
                    if not asked.endswith("stream"):
                        answers.append(client.get(asked, headers=headers))
            called = {"authorization": f"Bearer {PASSWORDS['caller']}"}
            asked = {"model": "base", "prompt": PROMPT, "user": "town/a"}
            answers.append(
                client.post(f"http://127.0.0.1:{gateway}/v1/completions", json=asked, headers=called)
            )
            answers_of_ctl = [_scalesimctl("config", "show", url=url), _scalesimctl("engines", url=url)]
            config.write_text(
                f"api: {{admin_token: {TOKENS['admin']}, admin_token_file: {tmp_path}/admin}}\n"
                f'redis: {{url: "http://:{PASSWORDS["redis"]}@127.0.0.1"}}\n'
            )
            process.send_signal(signal.SIGHUP)
            _until(lambda: "admin_token" in log.read_text(), log)
    finally:
        process.terminate()
        process.wait(WITHIN)
    said = log.read_text()
    assert "ready" in said and "Redis is away" in said and process.returncode == 0
    assert {200, 400, 401, 403, 404, 422, 502} <= {answer.status_code for answer in answers}
    shown = [answer.text for answer in answers]
    secrets = [*TOKENS.values(), *PASSWORDS.values(), PROMPT, SALT, *map(_secret, keys.values())]
    for text in (said, *answers_of_ctl, *shown):
        assert [secret for secret in secrets if secret in text] == [], text


def _scalesimctl(*words: str, url: str) -> str:
    """Return all that a command prints for a viewer."""
    done = CliRunner().invoke(scalesimctl, [*words, "--url", url], env={"SCALESIM_TOKEN": TOKENS["viewer"]})
    assert done.exit_code == 0, done.output
    return done.output


def _secret(file: Path) -> str:
    return file.read_text().rpartition('secret-key = "')[2].strip().strip('"')


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
