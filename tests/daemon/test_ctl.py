"""What `scalesimctl` is told by a whole daemon: tables, JSON, YAML, exit codes, and what is said where none answers."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer
from scalesim_daemon.ctl.app import app
from tests.daemon.ctl_rig import ODD, call, in_a_thread, populate, whole_daemon
from tests.daemon.live import emulator
from tests.daemon.test_doctor import answering

COMMANDS = {
    "status",
    "agents",
    "engines",
    "items",
    "explain",
    "plan",
    "decisions",
    "estimators",
    "pins",
    "operations",
    "events",
    "top",
    "doctor",
    "prefetch",
    "evict",
    "cancel",
    "pin",
    "unpin",
    "pause",
    "resume",
    "observe",
    "config",
}
STILL = (
    ["agents"],
    ["items"],
    ["explain", "town/a0"],
    ["estimators"],
    ["pins"],
    ["operations"],
    ["decisions"],
)


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("ctl")
    with emulator(folder) as engine, in_a_thread(folder, engine.url, redis={"enabled": False}) as whole:
        populate(whole)
        assert call("prefetch", "town/a0", "--url", whole.url).exit_code == 0
        yield whole.url


def plain(*arguments: str) -> Any:
    """Return what a command prints as JSON."""
    done = call(*arguments, "--format", "json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_status_shows_the_whole(url: str) -> None:
    done = call("status", "--url", url)
    assert done.exit_code == 0, done.output
    for word in ("ready", "active", "engine-0", "0.32.0+emulated", "town", "prefetches", "pairs"):
        assert word in done.stdout


def test_status_as_json_is_the_apis_own(url: str) -> None:
    parts = plain("status", "--url", url)
    assert parts["ready"] == {"ready": True, "reasons": []}
    assert parts["engines"]["engines"][0]["name"] == "engine-0"
    assert parts["report"]["order_accuracy"] is None
    assert parts["sources"]["sources"][0]["source"] == "town"


@pytest.mark.parametrize("command", STILL, ids=lambda command: command[0])
def test_yaml_is_the_json_in_another_form(url: str, command: list[str]) -> None:
    as_yaml = call(*command, "--url", url, "--format", "yaml").stdout
    assert yaml.safe_load(as_yaml) == plain(*command, "--url", url)
    assert as_yaml.isascii() and "\x1b" not in as_yaml


def test_the_url_may_come_from_the_environment(url: str) -> None:
    done = call("agents", "--format", "json", env={"SCALESIM_URL": url})
    assert json.loads(done.stdout)["total"] == 4


def test_agents_are_listed_nearest_first_and_limited(url: str) -> None:
    done = call("agents", "--url", url, "--limit", "2")
    assert done.exit_code == 0
    assert done.stdout.index("odd") < done.stdout.index("town/a0")
    assert "town/a1" not in done.stdout and "2 of 4 agents" in done.stdout


@pytest.mark.parametrize(
    ("asked", "keys"),
    [
        (["--text", "/a"], ["town/a0", "town/a1", "town/a2"]),
        (["--text", "/a", "--sort", "key", "--descending"], ["town/a2", "town/a1", "town/a0"]),
        (["--engine", "engine-0"], ["town/a0"]),
        (["--tier", "device"], ["town/a0"]),
        (["--simulation", "village"], []),
        (["--pinned"], []),
        (["--no-in-flight", "--offset", "3"], ["town/a2"]),
    ],
)
def test_agents_are_chosen_and_sorted(url: str, asked: list[str], keys: list[str]) -> None:
    assert [agent["key"] for agent in plain("agents", "--url", url, *asked)["agents"]] == keys


def test_engines_show_budgets_and_what_is_missing(url: str) -> None:
    done = call("engines", "--url", url)
    assert done.exit_code == 0, done.output
    for word in ("engine-0", "host tier", "lost blocks", "copies of LoRAs: ", "models -"):
        assert word in done.stdout
    assert plain("engines", "--url", url)["engines"][0]["blocks"]["capacity"] == 256


def test_items_are_shown_and_chosen(url: str) -> None:
    done = call("items", "--url", url)
    assert done.exit_code == 0, done.output
    for word in ("prefix_kv", "town/a0", "resident", "2/2 blocks", "1 of 1 items"):
        assert word in done.stdout
    assert plain("items", "--url", url, "--kind", "lora")["items"] == []
    chosen = plain("items", "--url", url, "--residency", "resident", "--tier", "device", "--sort", "key")
    assert [item["item"] for item in chosen["items"]] == ["town/a0"]


def test_the_plan_is_shown(url: str) -> None:
    done = call("plan", "--url", url)
    assert done.exit_code == 0, done.output
    assert "mode active" in done.stdout and "may displace" in done.stdout
    assert plain("plan", "--url", url)["engines"][0]["engine"] == "engine-0"


def test_decisions_are_shown_and_chosen(url: str) -> None:
    done = call("decisions", "--url", url)
    assert done.exit_code == 0, done.output
    for word in ("load prefix_kv 0-2", "town/a0", "done (", "1 of 1 decisions"):
        assert word in done.stdout
    chosen = plain("decisions", "--url", url, "--key", "town/a0", "--action", "load", "--result", "done")
    assert chosen["total"] == 1
    assert plain("decisions", "--url", url, "--result", "failed")["total"] == 0


def test_estimators_are_shown_with_what_they_came_to(url: str) -> None:
    done = call("estimators", "--url", url)
    assert done.exit_code == 0, done.output
    for word in ("town", "declared", "activity", "history", "blend", "by recency", "Brier", "yes", "no"):
        assert word in done.stdout
    known = plain("estimators", "--url", url)
    assert {estimator["estimator"] for estimator in known["estimators"]} >= {"activity", "blend"}


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
    assert plain("explain", ODD, "--url", url)["key"] == ODD


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
        ["agents", "--format", "xml"],
        ["agents", "--watch", "0"],
        ["status", "--url", "http://[::1"],
        ["status", "--url", "127.0.0.1:8700"],
        ["pin", "town/a0", "--for", "soon"],
        ["pin", "town/a0", "--for", "99999999999d"],
        ["prefetch", "town/a0", "--within", "9" * 400],
        ["prefetch"],
        ["doctor", "no-url"],
        ["nothing"],
    ],
)
def test_wrong_usage(arguments: list[str]) -> None:
    done = call(*arguments)
    assert done.exit_code == 2
    assert done.stderr and "Traceback" not in done.stderr
    assert isinstance(done.exception, SystemExit)


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["agents"],
        ["explain", "a/b"],
        ["events"],
        ["pause"],
        ["prefetch", "a/b"],
        ["config", "show"],
    ],
    ids=lambda command: command[0],
)
def test_nobody_there_is_said_with_the_remedy(command: list[str]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        done = call(*command, "--url", f"http://127.0.0.1:{bound.getsockname()[1]}")
    assert done.exit_code == 2
    assert "no daemon answers" in done.stderr
    assert "scalesimd serve" in done.stderr and "SCALESIM_URL" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("command", ["status", "events"])
@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"alive": "perhaps"}'])
def test_another_server_is_not_taken_for_the_daemon(command: str, body: bytes) -> None:
    with answering(body) as other:
        done = call(command, "--url", other)
    assert done.exit_code == 2
    assert "no scalesimd" in done.stderr


def test_a_stream_of_something_else_is_said() -> None:
    with answering(b"data: <html>\n\n", kind="text/event-stream") as other:
        done = call("events", "--url", other)
    assert done.exit_code == 2
    assert "no scalesimd" in done.stderr


@pytest.mark.parametrize("command", ["status", "events"])
@pytest.mark.parametrize(
    "url",
    ["http://u:hunter2@127.0.0.1:9", "u:hunter2@127.0.0.1:9", "http://u:hunter2@[::1", "http://u:hunter2/@h"],
)
def test_a_password_in_the_url_is_not_shown(command: str, url: str) -> None:
    done = call(command, env={"SCALESIM_URL": url})
    assert done.exit_code == 2 and done.stderr
    assert "hunter2" not in done.output


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "ftp://127.0.0.1:9"])
def test_a_proxy_of_no_use_is_said_with_the_remedy(proxy: str) -> None:
    env = {"ALL_PROXY": proxy, "all_proxy": None, "NO_PROXY": None, "no_proxy": None}
    done = call("status", "--url", "http://192.0.2.1:9", env=env)
    assert done.exit_code == 2
    assert "proxy" in done.stderr and "NO_PROXY" in done.stderr


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
        found = plain("doctor", engine.url)
        assert yaml.safe_load(call("doctor", engine.url, "--format", "yaml").stdout) == found
    assert "Nothing is missing." in done.stdout
    assert found["info"]["version"] == "0.32.0+emulated"


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


def test_every_command_has_help() -> None:
    commands = typer.main.get_command(app).commands
    assert set(commands) == COMMANDS
    assert all(command.help for command in commands.values())
    for arguments in ((), ("agents",), ("prefetch",), ("config",)):
        done = call(*arguments, "--help")
        assert done.exit_code == 0 and "Usage" in done.stdout
