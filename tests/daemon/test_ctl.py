"""`scalesimctl` against a whole daemon: tables, JSON, exit codes, and what is said where nobody answers."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
import typer
from typer.testing import CliRunner, Result

from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer
from scalesim_daemon import ctl
from tests.daemon.live import daemon, emulator, until
from tests.daemon.test_doctor import answering

STARTED_WITHIN = 20.0
# The argument of `memory.bound` for 2 blocks of the emulator's 32 tokens.
TOKENS = list(range(64))


@contextmanager
def whole_daemon(folder: Path, *engines: str) -> Iterator[str]:
    """Run a daemon in a thread; yields its URL."""
    loop, stop, ready = asyncio.new_event_loop(), asyncio.Event(), Event()
    urls: list[str] = []

    async def serve() -> None:
        async with daemon(folder, *engines) as (_, api):

            async def answered() -> bool:
                states = (await api.get("/v1/engines")).json()["engines"]
                return all(state["reachable"] for state in states)

            await until(answered)
            urls.append(str(api.base_url).rstrip("/"))
            ready.set()
            await stop.wait()

    thread = Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    try:
        assert ready.wait(STARTED_WITHIN)
        yield urls[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("ctl")
    with emulator(folder) as engine, whole_daemon(folder, engine.url) as url:
        events: list[dict[str, Any]] = [
            {"type": "agent.activity_started", "agent": f"a{number}", "for": 10.0 + number}
            for number in range(3)
        ]
        events += [
            {"type": "memory.bound", "agent": "a0", "token_ids": TOKENS},
            {"type": "agent.woken", "agent": "[red]odd[/red]/\x1b[31m.."},
        ]
        answer = httpx.post(f"{url}/v1/events", json=[0, events], params={"source": "town"})
        assert answer.json()["accepted"] == len(events)
        yield url


def call(*arguments: str, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(ctl.app, arguments, env={"COLUMNS": "160", **(env or {})})


def test_status_shows_the_whole(url: str) -> None:
    done = call("status", "--url", url)
    assert done.exit_code == 0, done.output
    for word in ("ready", "active", "engine-0", "0.32.0+emulated", "town", "prefetches", "pairs"):
        assert word in done.stdout


def test_status_as_json_is_the_apis_own(url: str) -> None:
    done = call("status", "--url", url, "--json")
    parts = json.loads(done.stdout)
    assert parts["ready"] == {"ready": True, "reasons": []}
    assert parts["engines"]["engines"][0]["name"] == "engine-0"
    assert parts["report"]["order_accuracy"] is None
    assert parts["sources"]["sources"][0]["source"] == "town"


def test_the_url_may_come_from_the_environment(url: str) -> None:
    done = call("agents", "--json", env={"SCALESIM_URL": url})
    assert json.loads(done.stdout)["total"] == 4


def test_agents_are_listed_nearest_first_and_limited(url: str) -> None:
    done = call("agents", "--url", url, "--limit", "2")
    assert done.exit_code == 0
    assert done.stdout.index("odd") < done.stdout.index("town/a0")
    assert "town/a1" not in done.stdout and "2 of 4 agents" in done.stdout


def test_estimators_are_shown_with_what_they_came_to(url: str) -> None:
    done = call("estimators", "--url", url)
    assert done.exit_code == 0, done.output
    for word in ("town", "declared", "activity", "history", "blend", "by recency", "Brier", "yes", "no"):
        assert word in done.stdout
    plain = json.loads(call("estimators", "--url", url, "--json").stdout)
    assert {estimator["estimator"] for estimator in plain["estimators"]} >= {"activity", "blend"}


def test_ids_are_neither_markup_nor_escape_codes(url: str) -> None:
    done = call("agents", "--url", url)
    assert "[red]odd[/red]" in done.stdout
    assert "\x1b[31m" not in done.stdout


def test_explain_says_why(url: str) -> None:
    done = call("explain", "town/a0", "--url", url)
    assert done.exit_code == 0, done.output
    assert "activity" in done.stdout and "due at 10" in done.stdout
    assert "prefix_kv" in done.stdout and "2 blocks" in done.stdout


def test_explain_finds_any_id(url: str) -> None:
    odd = "town/[red]odd[/red]/\x1b[31m.."
    done = call("explain", odd, "--url", url, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["key"] == odd


def test_an_unknown_agent_is_a_no(url: str) -> None:
    for agent in ("town/nobody", "town/..", "town/.", "town/a0/"):
        done = call("explain", agent, "--url", url)
        assert done.exit_code == 1, agent
        assert f"agent '{agent}' is not known" in done.stderr
        assert done.stdout == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", "nobody"],
        ["explain", "/nobody"],
        ["explain"],
        ["agents", "--limit", "0"],
        ["agents", "--limit", "x"],
        ["status", "--url", "http://[::1"],
        ["doctor", "no-url"],
        ["nothing"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    done = call(*arguments)
    assert done.exit_code == 2
    assert done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["status"], ["agents"], ["explain", "a/b"], ["estimators"]])
def test_nobody_there_is_said_with_the_remedy(command: list[str]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        done = call(*command, "--url", f"http://127.0.0.1:{bound.getsockname()[1]}")
    assert done.exit_code == 2
    assert "no daemon answers" in done.stderr
    assert "scalesimd serve" in done.stderr and "SCALESIM_URL" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"alive": "perhaps"}'])
def test_another_server_is_not_taken_for_the_daemon(body: bytes) -> None:
    with answering(body) as other:
        done = call("status", "--url", other)
    assert done.exit_code == 2
    assert "no scalesimd" in done.stderr


def test_a_daemon_that_is_not_ready_is_a_no(tmp_path: Path) -> None:
    with whole_daemon(tmp_path) as url:
        done = call("status", "--url", url)
    assert done.exit_code == 1
    assert "not ready" in done.stdout and "no engine is configured" in done.stdout


def test_doctor_prints_what_to_add_in_one_piece() -> None:
    with EmulatorServer(EmulatorConfig(max_loras=0)) as engine:
        done = call("doctor", engine.url, env={"COLUMNS": "60"})
    assert done.exit_code == 0, done.output
    assert "prefixes are prefetched" in " ".join(done.stdout.split())
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("  KV events: ")]
    assert "--kv-events-config" in line and '"enable_kv_cache_events": true' in line


def test_doctor_on_a_complete_engine(tmp_path: Path) -> None:
    with emulator(tmp_path) as engine:
        done = call("doctor", engine.url)
        plain = json.loads(call("doctor", engine.url, "--json").stdout)
    assert "Nothing is missing." in done.stdout
    assert plain["info"]["version"] == "0.32.0+emulated"


def test_doctor_where_there_is_no_engine() -> None:
    with answering(b"{}") as other:
        done = call("doctor", other)
    assert done.exit_code == 1
    assert "no OpenAI-compatible" in done.output
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        done = call("doctor", f"http://127.0.0.1:{bound.getsockname()[1]}")
    assert done.exit_code == 2
    assert "start the engine" in done.output


def test_an_interrupt_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(httpx.Client, "get", interrupted)
    assert call("status").exit_code == 130


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_the_command_honours_no_color(url: str, no_color: str, coloured: bool) -> None:
    env = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color", "NO_COLOR": no_color}
    command = [sys.executable, "-c", "from scalesim_daemon.commands import scalesimctl; scalesimctl()"]
    done = subprocess.run(
        [*command, "explain", "town/nobody", "--url", url],
        env=env,
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 1, done.stderr
    assert ("\x1b[31m" in done.stderr) is coloured


def test_every_command_has_help() -> None:
    commands = typer.main.get_command(ctl.app).commands
    assert set(commands) == {"status", "agents", "explain", "estimators", "doctor"}
    for name in commands:
        done = call(name, "--help")
        assert done.exit_code == 0 and "Usage" in done.stdout
