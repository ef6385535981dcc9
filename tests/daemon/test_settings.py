"""Settings: who wins, what is refused at boot and with which words, and that the example is complete."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from scalesim_daemon.setting_sources import load_settings, parse_engine
from scalesim_daemon.settings import ConfigError, EngineSettings, RunMode, Settings

EXAMPLE = Path(__file__).parents[2] / "configs" / "example.yaml"


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield prefix + name
        kinds = [field.annotation, *get_args(field.annotation)]
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from keys_of(kind, f"{prefix}{name}.")


def keys_in(content: Any, prefix: str = "") -> Iterator[str]:
    for item in content if isinstance(content, list) else [content]:
        if isinstance(item, dict):
            for name, value in item.items():
                yield prefix + name
                yield from keys_in(value, f"{prefix}{name}.")


def test_the_example_names_every_key_and_has_the_defaults() -> None:
    text = EXAMPLE.read_text()
    commented = {
        "feed.curve.server_key_file",
        "feed.curve.clients_dir",
        "broadcast.curve.server_key_file",
        "broadcast.curve.clients_dir",
        "feed.subscribe.endpoint",
        "feed.subscribe.replay",
        "engines.host_tier.segment",
        "engines.host_tier.bytes",
    }
    assert set(keys_in(yaml.safe_load(text))) == set(keys_of(Settings)) - commented
    assert all(f"{key.rpartition('.')[2]}: " in text for key in commented)
    example = load_settings(EXAMPLE)
    assert example.model_copy(update={"engines": ()}) == Settings()
    (engine,) = example.engines
    assert engine == EngineSettings(url="http://127.0.0.1:8000")


def test_flags_win_over_variables_over_the_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "scalesim.yaml"
    file.write_text("api: {port: 1}\nplanner: {chunk_tokens: 2, quiet_share: 0.5}\nlog:\n")
    monkeypatch.setenv("SCALESIM_API__PORT", "11")
    monkeypatch.setenv("SCALESIM_PLANNER__CHUNK_TOKENS", "12")
    monkeypatch.setenv("SCALESIM_FEED__SUBSCRIBE", '[{"endpoint": "tcp://10.0.0.7:5601"}]')
    settings = load_settings(file, {"api": {"port": 21, "host": None}, "mode": None})
    assert settings.api.port == 21
    assert settings.planner.chunk_tokens == 12
    assert settings.planner.quiet_share == 0.5
    assert [publisher.endpoint for publisher in settings.feed.subscribe] == ["tcp://10.0.0.7:5601"]
    assert settings.api.host == "127.0.0.1"
    assert settings.mode is RunMode.ACTIVE


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"planer": {}}, "unknown key planer: did you mean planner?"),
        ({"api": {"prot": 1}}, "unknown key api.prot: did you mean api.port?"),
        (
            {"engines": [{"url": "http://h:1", "lora_slot": 1}]},
            "unknown key engines[0].lora_slot: did you mean engines[0].lora_slots?",
        ),
        ({"api": {"host": "0.0.0.0"}}, "SSH tunnel"),
        ({"api": {"host": "example.org"}}, "api.host: 'example.org' is reachable from outside"),
        ({"api": {"port": 70000}}, "api.port: Input should be less than or equal to 65535"),
        ({"feed": {"bind": "127.0.0.1:5600"}}, "write tcp://host:port"),
        (
            {"feed": {"subscribe": [{"endpoint": "tcp://*:5600"}]}},
            "feed.subscribe[0].endpoint: 'tcp://*:5600' is where a publisher binds",
        ),
        ({"redis": {"url": "localhost:6379"}}, "redis.url: write redis://"),
        ({"fleet": {"enabled": True}}, "fleet: its daemons agree through a Redis that all of them reach"),
        (
            {"fleet": {"enabled": True}, "redis": {"enabled": False, "url": "redis://h"}},
            "set redis.url (and leave redis.enabled true)",
        ),
        (
            {"engines": [{"url": "http://h:1", "standby": True}]},
            "engines: vllm-h-1 is another daemon's (standby), and there is none: set fleet.enabled",
        ),
        ({"fleet": {"name": "a b"}}, "fleet.name: name 'a b'"),
        (
            {"fleet": {"lease_seconds": 0.5}},
            "fleet.lease_seconds: Input should be greater than or equal to 1",
        ),
        (
            {"fleet": {"lease_seconds": 301}},
            "fleet.lease_seconds: Input should be less than or equal to 300",
        ),
        ({"engines": [{"url": "h:1"}]}, "engines[0].url: 'h:1' is no URL"),
        ({"engines": [{"url": "http://h:1", "name": "a/b"}]}, "engines[0]: name 'a/b'"),
        ({"engines": [{"url": "http://h:1"}] * 2}, "vllm-h-1 is named twice"),
        (
            {"engines": [{"url": "http://h:1", "host_tier": {"segment": "/dev/shm/t", "byte": 1}}]},
            "unknown key engines[0].host_tier.byte: did you mean engines[0].host_tier.bytes?",
        ),
        (
            {"engines": [{"url": "http://h:1", "host_tier": {"segment": "/dev/shm/t", "bytes": 0}}]},
            "engines[0].host_tier.bytes: Input should be greater than or equal to 1",
        ),
        (
            {
                "engines": [
                    {"url": f"http://h:{port}", "host_tier": {"segment": "/dev/shm/t", "bytes": "1GiB"}}
                    for port in (1, 2)
                ]
            },
            "engines: /dev/shm/t is the host tier of 2: every engine needs its own",
        ),
        (
            {"redis": {"data_dir": "~nobody-of-that-name/valkey"}},
            "redis.data_dir: '~nobody-of-that-name/valkey' begins in the home of a user who has none here",
        ),
        ({"planner": {"quiet_share": "nan"}}, "planner.quiet_share"),
        ({"loras": {"staging_bytes": "-1"}}, "loras.staging_bytes"),
        (
            {"sscheduler": {"loras": "loras/{agent_id}"}},
            "sscheduler.loras: 'loras/{agent_id}': write an absolute",
        ),
        ({"mode": "sleeping"}, "mode: Input should be 'active', 'paused' or 'observe'"),
    ],
)
def test_what_is_wrong_is_named(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings(None, overrides)
    assert message in str(refused.value)


def test_all_faults_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match=r"api\.prot.*\n.*api\.host|api\.host.*\n.*api\.prot"):
        load_settings(None, {"api": {"prot": 1, "host": "10.0.0.1"}})


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SCALESIM_FEDE__BIND", "x", "unknown variable SCALESIM_FEDE__BIND: did you mean SCALESIM_FEED?"),
        ("SCALESIM_API__PROT", "1", "unknown key api.prot: did you mean api.port?"),
        ("SCALESIM_ENGINES", "vllm", "lists and maps are JSON"),
    ],
)
def test_variables_are_checked(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, message: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError) as refused:
        load_settings()
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"), [("- a\n", "must be a map"), ("a: [", "is no YAML"), ("1: 2", "must be a map")]
)
def test_a_file_that_is_no_map_is_refused(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "scalesim.yaml"
    file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_settings(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_settings(tmp_path / "none.yaml")


def test_engines_from_flags() -> None:
    flags = ["vllm=http://127.0.0.1:8000/", "vllm=https://user:secret@[::1]:8001"]
    settings = load_settings(None, {"engines": [parse_engine(flag) for flag in flags]})
    assert [engine.name for engine in settings.engines] == ["vllm-127.0.0.1-8000", "vllm--1-8001"]
    assert settings.engines[0].url == "http://127.0.0.1:8000"
    with pytest.raises(ConfigError, match="KIND=URL"):
        parse_engine("http://127.0.0.1:8000")
    with pytest.raises(ConfigError, match=r"engines\[0\]\.kind: Input should be 'vllm'"):
        load_settings(None, {"engines": [parse_engine("tgi=http://127.0.0.1:8000")]})


def test_a_password_of_redis_is_not_shown() -> None:
    settings = load_settings(None, {"redis": {"url": "redis://:secret@localhost"}})
    assert "secret" not in repr(settings)
