"""The configuration shown without secrets, and read again: what holds at once, what waits, and what is refused."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
import yaml

from scalesim_daemon.admin.reload import reload, shown
from scalesim_daemon.app import running
from scalesim_daemon.logs import configure_logging
from scalesim_daemon.loop import Sidecar
from scalesim_daemon.setting_sources import load_settings
from scalesim_daemon.settings import LogSettings
from tests.daemon.live import WITHIN, overrides, until
from tests.daemon.still import add_engine, ask

ADMIN, OTHER = "admin-token-0123456789", "other-token-0123456789"


@pytest.fixture(autouse=True)
def logging_as_before() -> Any:
    """Leave logging as it was found: a reload sets it."""
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.configure(**before)
    root.handlers[:], root.level = handlers, level


class Configured:
    """A sidecar that was started from a file, which a test writes anew."""

    def __init__(self, folder: Path, sidecar: Sidecar) -> None:
        self.file = folder / "scalesim.yaml"
        self._base = overrides(folder, "http://user:secret@127.0.0.1:9")
        self.feed = self._base["feed"]
        self.sidecar = sidecar
        self.write()
        sidecar.reread = partial(load_settings, self.file)
        sidecar.settings = sidecar.reread()

    def write(self, **sections: Any) -> None:
        self.file.write_text(yaml.safe_dump({**self._base, **sections}))

    def reload(self) -> httpx.Response:
        (answer,) = asyncio.run(ask(self.sidecar, lambda client: client.post("/v1/config/reload")))
        return answer


@pytest.fixture
def configured(tmp_path: Path, sidecar: Sidecar) -> Configured:
    return Configured(tmp_path, sidecar)


def keys(changes: list[dict[str, Any]]) -> list[str]:
    return [change["key"] for change in changes]


def test_what_has_changed_holds_at_once_or_is_named(configured: Configured) -> None:
    view = add_engine(configured.sidecar).view
    assert configured.reload().json() == {"now": [], "after_restart": []}
    configured.write(
        planner={"chunk_tokens": 64, "quiet_share": 0.5},
        models={"budget_bytes": "2GiB"},
        log={"level": "error"},
        feed={"bind": "tcp://127.0.0.1:5999"},
        mode="paused",
    )
    answer = configured.reload().json()
    assert keys(answer["now"]) == [
        "planner.chunk_tokens",
        "planner.quiet_share",
        "models.budget_bytes",
        "log.level",
    ]
    assert answer["now"][0] == {"key": "planner.chunk_tokens", "before": 256, "after": 64}
    assert keys(answer["after_restart"]) == ["mode", "feed.bind"]
    assert (view.chunk_tokens, view.quiet.share) == (64, 0.5)
    in_force = configured.sidecar.settings
    assert in_force.models.budget_bytes == 2 * 1024**3 and in_force.feed.bind.startswith("ipc://")
    again = configured.reload().json()
    assert again["now"] == [] and keys(again["after_restart"]) == ["mode", "feed.bind"]


def test_a_section_that_comes_or_goes_is_one_setting(configured: Configured) -> None:
    curve = {"server_key_file": "/keys/feed.key_secret", "clients_dir": "/keys/clients"}
    configured.write(feed={**configured.feed, "curve": curve}, api={"port": 0, "admin_token": ADMIN})
    answer = configured.reload().json()
    assert keys(answer["now"]) == ["api.admin_token"]
    assert answer["after_restart"] == [{"key": "feed.curve", "before": None, "after": curve}]
    # A token that is exchanged with it counts at once.
    assert configured.sidecar.tokens.by_role.keys() == {"admin"}
    assert configured.sidecar.reread is not None
    configured.sidecar.settings = configured.sidecar.reread()
    configured.write()
    (change,) = reload(configured.sidecar).after_restart
    assert (change.key, change.before, change.after) == ("feed.curve", curve, None)


@pytest.mark.parametrize(
    ("sections", "problem"),
    [
        (
            {"planner": {"chunk_tokens": 0}},
            "planner.chunk_tokens: Input should be greater than or equal to 1",
        ),
        ({"planner": {"chunk": 1}}, "unknown key planner.chunk: did you mean planner.chunk_tokens?"),
        ({"api": {"admin_token_file": "/no/such"}}, "api.admin_token_file: /no/such: No such file"),
        ({"engines": [{"url": "ftp://user:secret@h"}]}, "engines[0].url: 'ftp://***@h' is no URL"),
    ],
)
def test_what_is_wrong_changes_nothing_and_is_named(
    configured: Configured, capsys: pytest.CaptureFixture[str], sections: dict[str, Any], problem: str
) -> None:
    before = configured.sidecar.settings
    configured.write(log={"level": "error"}, **sections)
    answer = configured.reload()
    assert answer.status_code == 422 and problem in answer.json()["detail"]
    assert configured.sidecar.settings is before
    configured.file.write_text("planner: [")
    assert configured.reload().status_code == 422
    assert "secret" not in capsys.readouterr().out + answer.text


def test_a_line_that_is_no_yaml_is_named_and_not_quoted(configured: Configured) -> None:
    configured.file.write_text(f"api:\n  admin_token: {ADMIN}: and more\n")
    answer = configured.reload()
    assert answer.status_code == 422 and "is no YAML: line 2: " in answer.json()["detail"]
    assert ADMIN not in answer.text
    configured.file.write_text("planner: 2026-13-45")
    assert configured.reload().status_code == 422


def test_streams_end_when_tokens_change_and_only_then(configured: Configured, tmp_path: Path) -> None:
    before = configured.sidecar.tokens
    configured.write(planner={"chunk_tokens": 64})
    assert configured.reload().status_code == 200
    assert configured.sidecar.tokens is before
    file = tmp_path / "token"
    file.write_text(ADMIN)
    configured.write(planner={"chunk_tokens": 64}, api={"admin_token_file": str(file)})
    assert configured.reload().status_code == 200
    file.write_text(OTHER)
    configured.write(planner={"chunk_tokens": 32}, api={"admin_token_file": str(file)})
    (answer,) = asyncio.run(
        ask(
            configured.sidecar,
            lambda client: client.post("/v1/config/reload", headers={"Authorization": f"Bearer {ADMIN}"}),
        )
    )
    assert keys(answer.json()["now"]) == ["api.admin_token_file", "planner.chunk_tokens"]


def test_tokens_are_exchanged_while_it_runs(configured: Configured, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(ADMIN)
    configured.write(api={"admin_token_file": str(file)})
    answer = configured.reload()
    assert keys(answer.json()["now"]) == ["api.admin_token_file"]
    file.write_text(OTHER)

    def reload_with(token: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"}
        (answer,) = asyncio.run(
            ask(configured.sidecar, lambda client: client.post("/v1/config/reload", headers=headers))
        )
        return answer

    assert configured.reload().status_code == 401
    renewed = reload_with(ADMIN)
    assert keys(renewed.json()["now"]) == ["api.admin_token_file"]
    assert OTHER not in renewed.text
    assert (reload_with(ADMIN).status_code, reload_with(OTHER).status_code) == (401, 200)


def test_tokens_do_not_go_while_the_api_is_reachable_from_outside(configured: Configured) -> None:
    configured.write(api={"host": "0.0.0.0", "admin_token": ADMIN})
    assert configured.sidecar.reread is not None
    configured.sidecar.settings = configured.sidecar.reread()
    configured.write(api={"host": "127.0.0.1"})
    answer = configured.reload()
    assert answer.status_code == 422
    assert "api.host: '0.0.0.0' is reachable from outside, and no token is set" in answer.json()["detail"]
    assert configured.sidecar.settings.api.admin_token is not None


def test_the_configuration_is_shown_without_secrets(configured: Configured) -> None:
    configured.write(
        api={"admin_token": ADMIN}, redis={"url": "redis://:sec@ret@localhost/0?password=secret"}
    )
    assert configured.sidecar.reread is not None
    configured.sidecar.settings = configured.sidecar.reread()
    (answer,) = asyncio.run(ask(configured.sidecar, lambda client: client.get("/v1/config")))
    settings = answer.json()["settings"]
    assert settings["api"]["admin_token"] == "**********" and settings["api"]["viewer_token"] is None
    assert settings["redis"]["url"] == "redis://***@localhost/0?***"
    assert settings["engines"][0]["url"] == "http://***@127.0.0.1:9"
    assert not any(secret in answer.text for secret in (ADMIN, "secret", "sec@"))
    configured.write(redis={"url": "redis://:secret@elsewhere"})
    changed = configured.reload()
    assert "redis.url" in keys(changed.json()["after_restart"]) and "secret" not in changed.text
    assert ADMIN not in changed.text


def test_only_what_stands_somewhere_is_read_again(sidecar: Sidecar) -> None:
    (answer,) = asyncio.run(ask(sidecar, lambda client: client.post("/v1/config/reload")))
    assert answer.status_code == 409 and "not started from a configuration" in answer.json()["detail"]
    assert shown("unix:///run/redis.sock?db=1") == "unix:///run/redis.sock?***"
    assert shown("redis://:a'b\"c@host/0") == "redis://***@host/0"


def test_a_running_daemon_reads_its_file_again(tmp_path: Path) -> None:
    async def scene() -> None:
        file = tmp_path / "scalesim.yaml"
        settings = overrides(tmp_path, redis={"enabled": False})
        file.write_text(yaml.safe_dump(settings))
        reread = partial(load_settings, file)
        async with (
            running(reread(), reread) as sidecar,
            httpx.AsyncClient(base_url=sidecar.api_url, timeout=WITHIN) as api,
        ):
            file.write_text(yaml.safe_dump({**settings, "models": {"budget_bytes": 5}}))
            answer = (await api.post("/v1/config/reload")).json()
            assert keys(answer["now"]) == ["models.budget_bytes"]
            shown_now = (await api.get("/v1/config")).json()["settings"]
            assert shown_now["models"]["budget_bytes"] == 5

    asyncio.run(scene())


def test_what_libraries_say_is_logged_in_the_same_form(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LogSettings(format="json"))
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application")
    logging.getLogger("httpx").info("HTTP Request: GET http://user:secret@engine")
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert (said["event"], said["level"]) == ("Exception in ASGI application", "error")
    assert "ValueError: no" in said["exception"] and "timestamp" in said


def test_a_hangup_makes_the_daemon_read_its_file_again(tmp_path: Path) -> None:
    async def scene() -> None:
        file = tmp_path / "scalesim.yaml"
        settings = {**overrides(tmp_path, redis={"enabled": False}), "log": {"format": "json"}}
        file.write_text(yaml.safe_dump(settings))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", "from scalesim_daemon.commands import scalesimd; scalesimd()"),
            *("serve", "--config", str(file)),
            stderr=asyncio.subprocess.PIPE,
            env={name: value for name, value in os.environ.items() if not name.startswith("SCALESIM_")},
        )
        assert process.stderr is not None
        lines: list[dict[str, Any]] = []
        stderr = process.stderr

        async def said(event: str) -> bool:
            lines.append(json.loads(await asyncio.wait_for(stderr.readline(), WITHIN)))
            return bool(lines[-1]["event"] == event)

        try:
            await until(lambda: said("ready"))
            file.write_text(yaml.safe_dump({**settings, "planner": {"chunk_tokens": 32}}))
            process.send_signal(signal.SIGHUP)
            await until(lambda: said("configuration read again"))
            assert lines[-1]["now"] == ["planner.chunk_tokens"]
            file.write_text("planner: {chunk_tokens: none}")
            process.send_signal(signal.SIGHUP)
            await until(lambda: said("configuration not taken: all stays as it was"))
            assert "planner.chunk_tokens" in lines[-1]["error"]
            process.send_signal(signal.SIGTERM)
            assert await asyncio.wait_for(process.wait(), WITHIN) == 0
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    asyncio.run(scene())
