"""Passwords stand in URLs, and people forget to escape them: nothing that is told has a part of one."""

from __future__ import annotations

import json
from time import process_time
from typing import Any

import pytest

from scalesim_daemon.admin.reload import shown
from scalesim_daemon.redis_client import open_client
from scalesim_daemon.setting_sources import load_settings, parse_engine
from scalesim_daemon.setting_values import redacted
from scalesim_daemon.settings import ConfigError

SECRET = "hunter2"
UNESCAPED = [f"{SECRET}{odd}x" for odd in "/?#@ [\t'\""] + [f"x{odd}{SECRET}" for odd in "/?#@ ]:'\""]
URLS = {
    "redis": lambda url: {"redis": {"url": f"redis://{url}:6379/0"}},
    "socket": lambda url: {"redis": {"url": f"unix://{url}/tmp/valkey"}},
    "other": lambda url: {"redis": {"url": f"http://{url}"}},
    "engine": lambda url: {"engines": [{"kind": "vllm", "url": f"http://{url}:8000"}]},
    "another": lambda url: {"engines": [{"kind": "vllm", "url": f"redis://{url}:8000"}]},
}


@pytest.mark.parametrize("password", UNESCAPED)
@pytest.mark.parametrize("kind", URLS)
def test_a_password_that_is_not_escaped_is_told_nobody(kind: str, password: str) -> None:
    given: dict[str, Any] = URLS[kind](f"operator:{password}@127.0.0.1")
    try:
        settings = load_settings(None, given)
    except ConfigError as error:
        told = str(error)
    else:
        told = f"{json.dumps(shown(settings.model_dump(mode='json')))} {settings.redis!r}"
        if kind == "redis":
            assert (
                open_client(str(settings.redis.url)).connection_pool.connection_kwargs["password"] == password
            )
    assert SECRET not in told


def test_an_escaped_one_is_what_it_says() -> None:
    url = "redis://operator:a%2Fb%3F%40%20@127.0.0.1:6379/0"
    settings = load_settings(None, {"redis": {"url": url}})
    assert open_client(str(settings.redis.url)).connection_pool.connection_kwargs["password"] == "a/b?@ "


@pytest.mark.parametrize("password", UNESCAPED)
def test_a_flag_that_is_no_engine_shows_none(password: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_engine(f"http://operator:{password}@127.0.0.1:8000")
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("http://a:8000 doesn't answer", "http://a:8000 doesn't answer"),
        ("at http://u:p@a:8000/x (away)", "at http://***@a:8000/x (away)"),
        ("('http://a/?key=k')", "('http://a/?***')"),
        ("http://a/?key=k'k, http://b?q", "http://a/?***, http://b?***"),
        ("redis://a/0?password=p@q, it says", "redis://***, it says"),
        ("http://u:p/q@a and rosa@town", "http://***@a and rosa@town"),
    ],
)
def test_of_a_text_what_may_be_secret_alone_is_left_out(text: str, safe: str) -> None:
    assert redacted(text) == safe


@pytest.mark.parametrize(
    "text", ["a" * 200_000, "x://" + "." * 200_000 + "a", "http://a" + ")" * 200_000 + "b"]
)
def test_a_long_text_takes_no_longer_than_its_length(text: str) -> None:
    before = process_time()
    assert redacted(text) == text
    assert process_time() - before < 1
