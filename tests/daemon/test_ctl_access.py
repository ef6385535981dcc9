"""`scalesimctl` and a daemon on another address, which asks for tokens."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from scalesim_daemon.setting_sources import load_settings
from tests.daemon.ctl_rig import Whole, call, in_a_thread, populate

ADMIN, VIEWER, PUBLISHER = (f"{role}-token-0123456789" for role in ("admin", "viewer", "publisher"))
# Documentation's own network: nothing is sent there, the route alone says which address is this machine's.
ELSEWHERE = ("192.0.2.1", 9)


def own_address() -> str:
    """Return an address of this machine that others could reach, or one of loopback's other ones."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        try:
            sender.connect(ELSEWHERE)
        except OSError:
            return "127.0.0.2"
        return str(sender.getsockname()[0])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("ctl-access")
    api = {
        "host": own_address(),
        "port": 0,
        "admin_token": ADMIN,
        "viewer_token": VIEWER,
        "publisher_token": PUBLISHER,
    }
    with in_a_thread(folder, api=api, redis={"enabled": False}) as whole:
        populate(whole, PUBLISHER)
        yield whole


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has a proxy says for which addresses it isn't."""
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("no_proxy", "*")


def test_the_daemon_listens_elsewhere(whole: Whole) -> None:
    assert urlsplit(whole.url).hostname != "127.0.0.1"


def test_a_token_comes_from_the_environment_or_from_a_file(whole: Whole, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{VIEWER}\n")
    for arguments, env in (
        ((), {"SCALESIM_TOKEN": VIEWER}),
        (("--token-file", str(file)), {}),
        (("--token-file", str(file)), {"SCALESIM_TOKEN": "the-file-comes-first"}),
    ):
        done = call("agents", "--format", "json", *arguments, env={"SCALESIM_URL": whole.url, **env})
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["total"] == 4


@pytest.mark.parametrize("command", [["agents"], ["events"], ["pause"], ["prefetch", "town/a0"]], ids=str)
def test_without_a_token_it_is_asked_for(whole: Whole, command: list[str]) -> None:
    done = call(*command, "--url", whole.url)
    assert done.exit_code == 1
    assert "asks who you are" in done.stderr
    assert (
        "--token-file" in done.stderr
        and "SCALESIM_TOKEN" in done.stderr
        and "api.admin_token_file" in done.stderr
    )


def test_a_wrong_token_is_said_and_not_shown(whole: Whole) -> None:
    done = call("status", "--url", whole.url, env={"SCALESIM_TOKEN": "wrong-token-0123456789"})
    assert done.exit_code == 1
    assert "doesn't know this token" in done.stderr and "SIGHUP" in done.stderr
    assert "wrong-token" not in done.output


@pytest.mark.parametrize(
    ("token", "command"),
    [
        (VIEWER, ["pause"]),
        (VIEWER, ["pin", "town/a0"]),
        (VIEWER, ["unpin", "town/a0"]),
        (VIEWER, ["prefetch", "town/a0"]),
        (VIEWER, ["evict", "town/a0"]),
        (VIEWER, ["cancel", "none"]),
        (VIEWER, ["config", "reload"]),
        (PUBLISHER, ["agents"]),
        (PUBLISHER, ["events"]),
    ],
    ids=str,
)
def test_a_token_may_do_what_it_is_for(whole: Whole, token: str, command: list[str]) -> None:
    done = call(*command, "--url", whole.url, env={"SCALESIM_TOKEN": token})
    assert done.exit_code == 1 and done.stdout == ""
    role = "viewer" if token == VIEWER else "publisher"
    assert f"a {role}'s token may not do that" in done.stderr and "name the admin's token" in done.stderr


def test_an_admin_steers(whole: Whole) -> None:
    done = call("observe", "--url", whole.url, env={"SCALESIM_TOKEN": ADMIN})
    assert done.exit_code == 0 and "mode observe" in done.stdout


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file"),
        (b"", "holds no token"),
        (b"\xff\xfe", "is no text"),
        ("tökén".encode(), "holds no token"),
    ],
)
def test_a_file_without_a_token_is_said(tmp_path: Path, content: bytes | None, problem: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    done = call("agents", "--token-file", str(file))
    assert done.exit_code == 2 and problem in done.stderr


def test_the_daemon_s_own_settings_let_the_command_s_variables_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALESIM_TOKEN", ADMIN)
    monkeypatch.setenv("SCALESIM_URL", "http://127.0.0.1:8700")
    load_settings()
