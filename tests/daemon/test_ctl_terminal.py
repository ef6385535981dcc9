"""`scalesimctl` as a process: on a terminal and in a pipe, watching, interrupted, coloured or not, completed by a
shell."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from scalesim_daemon.ctl.client import Message
from scalesim_daemon.ctl.formats import print_view
from scalesim_daemon.ctl.options import WATCH_SECONDS, with_seconds
from scalesim_daemon.ctl.views.stream import lines
from tests.daemon.ctl_rig import COMMAND, ENDED_WITHIN, Whole, call, environment, in_a_thread, populate, start
from tests.daemon.live import WITHIN, emulator

LONG = "n" * 200
# Of whoever runs the tests nothing decides how the command prints.
PLAIN = {"COLUMNS": None, "NO_COLOR": None, "FORCE_COLOR": None}
ROW = {
    "key": "town/a",
    "due": 7,
    "source": "town",
    "tier": "host",
    "resident": 0.5,
    "in_flight": 0,
    "pinned": False,
}
STEP = {
    "action": "load",
    "kind": "prefix_kv",
    "key": "town/a",
    "start": 0,
    "stop": 2,
    "seconds": 1.0,
    "reason": "due next",
    "victims": [],
}
DECISION = {"at": 0.0, "engine": "engine-0", "step": STEP, "result": "done", "seconds": 0.1, "computed": 64}
ALTERNATE, BACK = "\x1b[?1049h", "\x1b[?1049l"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("ctl-terminal")
    with emulator(folder) as engine, in_a_thread(folder, engine.url, redis={"enabled": False}) as whole:
        populate(whole)
        yield whole


@contextmanager
def terminal() -> Iterator[tuple[int, Callable[[str], str]]]:
    """Open a terminal; yields its end for a command, and what reads the other end until something is on it."""
    ours, theirs = pty.openpty()
    seen = ""

    def read_until(text: str) -> str:
        nonlocal seen
        deadline = time.monotonic() + WITHIN
        while text not in seen:
            assert select.select([ours], [], [], deadline - time.monotonic())[0], f"no {text!r} in {seen!r}"
            seen += os.read(ours, 65536).decode(errors="replace")
        return seen

    try:
        yield theirs, read_until
    finally:
        os.close(ours)
        os.close(theirs)


def interrupted(process: subprocess.Popen[str]) -> tuple[str, str]:
    """Press Ctrl-C; returns what was still printed."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=ENDED_WITHIN)
    assert process.returncode == 130, err
    assert "Traceback" not in (err or "")
    return out or "", err or ""


def test_on_a_terminal_watching_draws_in_place_and_puts_the_screen_back(whole: Whole) -> None:
    sizes = {"TERM": "xterm-256color", "COLUMNS": "120", "LINES": "40"}
    with terminal() as (theirs, read_until):
        process = start("agents", "--watch", "0.1", "--url", whole.url, env=sizes, stdout=theirs)
        assert "town/a0" in read_until("town/a2") and ALTERNATE in read_until(ALTERNATE)
        whole.say({"type": "agent.woken", "agent": "newcomer"})
        read_until("town/newcomer")
        assert interrupted(process)[1] == ""
        read_until(BACK)


def test_in_a_pipe_watching_prints_an_answer_a_line_until_nobody_reads_on(whole: Whole) -> None:
    process = start("plan", "--url", whole.url, "--format", "json", "--watch", "0.1")
    assert process.stdout is not None and process.stderr is not None
    answers = [json.loads(process.stdout.readline()) for _ in range(2)]
    assert [answer["mode"] for answer in answers] == ["active", "active"]
    process.stdout.close()
    assert process.wait(ENDED_WITHIN) == 1
    assert process.stderr.read() == ""
    process.stderr.close()


@pytest.mark.parametrize(
    ("given", "written"),
    [
        (["--watch"], ["--watch", WATCH_SECONDS]),
        (["--watch", "5"], ["--watch", "5"]),
        (["--watch=5"], ["--watch=5"]),
        (["--watch", "--limit", "5"], ["--watch", WATCH_SECONDS, "--limit", "5"]),
        (["--watch", "town/a"], ["--watch", WATCH_SECONDS, "town/a"]),
        (["--", "--watch"], ["--", "--watch"]),
    ],
)
def test_watch_may_stand_without_its_seconds(given: list[str], written: list[str]) -> None:
    assert with_seconds(given) == written


def test_events_are_followed_line_by_line_until_interrupted(whole: Whole) -> None:
    process = start("events", "agents", "snapshot", "--url", whole.url, "--format", "json")
    assert process.stdout is not None
    snapshot = json.loads(process.stdout.readline())
    assert snapshot["event"] == "snapshot" and snapshot["data"]["mode"] == "active"
    whole.say({"type": "agent.woken", "agent": "a2"})
    changed = json.loads(process.stdout.readline())
    assert changed["event"] == "agents"
    (woken,) = (agent for agent in changed["data"]["changed"] if agent["key"] == "town/a2")
    assert woken["due"] == 0.0 and interrupted(process)[1] == ""


@pytest.mark.parametrize(
    ("event", "data", "told"),
    [
        (
            "snapshot",
            {"mode": "active", "agents": [], "clocks": {}},
            "snapshot: mode active, 0 agents of 0 sources",
        ),
        ("mode", {"mode": "paused"}, "mode paused"),
        ("clocks", {"town": {"kind": "step", "now": 3, "pace": None}}, "clock of town: 3 step"),
        (
            "agents",
            {"changed": [ROW], "gone": []},
            "agent town/a: due at 7 of town, memory on host, 50% of its prefix ",
        ),
        ("agents", {"changed": [], "gone": ["town/\x1b"]}, "agent town/\ufffd: gone"),
        ("decisions", [DECISION], "engine-0: load prefix_kv 0-2 of town/a, due next: done"),
        ("unheard-of", 5, "unheard-of: 5"),
    ],
)
def test_events_read_as_words(event: str, data: Any, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_view(lines(Message(event, data), "12:00:00"))
    assert capsys.readouterr().out.startswith(f"12:00:00 {told}")


def test_whoever_stops_waiting_is_told_what_goes_on(whole: Whole) -> None:
    whole.say({"type": "invocation.started", "agent": "a1"})
    whole.say({"type": "memory.bound", "agent": "late", "token_ids": list(range(1000, 1064))})
    with terminal() as (theirs, read_until):
        process = start(
            "prefetch",
            "town/late",
            "--url",
            whole.url,
            env={"TERM": "xterm", "COLUMNS": "200"},
            stderr=theirs,
        )
        assert "load prefix_kv of town/late on engine-0: waiting" in read_until("waiting")
        assert interrupted(process)[0] == ""
        (operation,) = whole.sidecar.operations.open()
        assert f"scalesimctl cancel {operation.id}" in read_until("gives it up")
    done = call("cancel", operation.id, "--url", whole.url)
    assert done.exit_code == 0 and "cancelled" in done.stdout
    whole.say({"type": "invocation.finished", "agent": "a1"})


@pytest.mark.parametrize(
    ("variables", "coloured"),
    [
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": ""}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({}, False),
    ],
)
def test_colours_are_for_terminals_that_want_them(
    whole: Whole, variables: dict[str, str], coloured: bool
) -> None:
    done = call(
        "explain", "town/nobody", "--url", whole.url, env={**PLAIN, "TERM": "xterm-256color", **variables}
    )
    assert done.exit_code == 1
    assert ("\x1b[31m" in done.stderr) is coloured


def test_in_a_pipe_a_row_is_a_line(whole: Whole) -> None:
    whole.say({"type": "agent.woken", "agent": LONG})
    done = call("agents", "--url", whole.url, env={**PLAIN, "TERM": "xterm-256color"})
    assert done.exit_code == 0
    (row,) = [line for line in done.stdout.splitlines() if LONG in line]
    assert "0 step" in row
    assert "\x1b" not in done.stdout


def completion(shell: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return what makes a shell complete the command; typer asks which shell runs this, unless told not to."""
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    done = call("--show-completion", shell, prog_name="scalesimctl")
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_printed(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert f"_SCALESIMCTL_COMPLETE=complete_{shell}" in completion(shell, monkeypatch)


def test_a_shell_completes_agents(whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    command = tmp_path / "scalesimctl"
    command.write_text(f"#!{sys.executable}\n{COMMAND}\n")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    ask = """
    COMP_WORDS=(scalesimctl explain town/a) COMP_CWORD=2
    _scalesimctl_completion scalesimctl
    echo "${COMPREPLY[*]}"
    """
    variables = environment(SCALESIM_URL=whole.url, PATH=f"{tmp_path}:{os.environ['PATH']}")
    done = subprocess.run(
        [bash, "-c", completion("bash", monkeypatch) + ask],
        env=variables,
        capture_output=True,
        text=True,
        timeout=ENDED_WITHIN,
    )
    assert set(done.stdout.split()) == {"town/a0", "town/a1", "town/a2"}, done.stderr


@pytest.mark.parametrize(
    ("typed", "proposed"),
    [
        ("est", "estimators"),
        ("explain --url http://127.0.0.1:9 town/", "_files"),
        ("agents --sort r", "resident"),
    ],
)
def test_commands_and_values_are_completed_without_a_daemon(typed: str, proposed: str) -> None:
    variables = {"_SCALESIMCTL_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": f"scalesimctl {typed}"}
    done = call(env=variables, prog_name="scalesimctl")
    assert proposed in done.stdout and "town" not in done.output and done.stderr == ""
