"""The settings read: flags before `SCALESIM_*` variables before a YAML file, and why they can't be used."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import EnvSettingsSource, SettingsError

from scalesim_daemon.setting_values import redacted
from scalesim_daemon.settings import ENV_PREFIX, ConfigError, Settings

# Variables of the same prefix that other parts of the project read.
OTHER_VARIABLES = frozenset(
    {
        "SCALESIM_CPU_FAST_LORA",
        "SCALESIM_DUES",
        "SCALESIM_DUES_DAEMON_KEY",
        "SCALESIM_DUES_KEYS",
        "SCALESIM_SILENCE_SECONDS",
        "SCALESIM_TOKEN",
        "SCALESIM_URL",
    }
)
# What PyYAML raises, its own error apart: for values that aren't what their form or tag says, and for deep nesting.
NO_YAML = (yaml.YAMLError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)


def load_settings(config: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings of a YAML file, the environment and `overrides`: flags, nested as in the file, None
    where one was not given. Raises `ConfigError`."""
    file = {} if config is None else _read_yaml(config)
    merged = _merge(_merge(file, _read_environment()), _given(overrides or {}))
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise refusal(error) from None


def refusal(error: ValidationError, what: str = "configuration refused") -> ConfigError:
    """Return what says of every key at fault what is wrong with it, and shows no secret."""
    problems = [redacted(_explain(detail)) for detail in error.errors()]
    return ConfigError(f"{what}:\n" + "\n".join(f"  {problem}" for problem in problems))


def parse_engine(text: str) -> dict[str, str]:
    """Turn a flag's `KIND=URL` into what `engines` takes. Raises `ConfigError`."""
    kind, separator, url = text.partition("=")
    if not separator or not url:
        raise ConfigError(
            f"--engine {redacted(''.join(text.split()))}: write KIND=URL, for example vllm=http://127.0.0.1:8000"
        )
    return {"kind": kind, "url": url}


def read_secret(key: str, file: Path) -> str:
    """Return what stands alone in a file that the setting `key` names. Raises `ConfigError`, which doesn't show it."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigError(f"{key}: {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{key}: {file} is no text") from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except yaml.MarkedYAMLError as error:
        # Its own text quotes the line at fault, in which a token may stand.
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{path} is no YAML: line {line}: {error.problem}") from None
    except NO_YAML as error:
        raise ConfigError(f"{path} is no YAML: {error or type(error).__name__}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ConfigError(f"{path}: the file must be a map of sections, got {type(content).__name__}")
    # A section whose keys are all commented out reads as null.
    return {key: value for key, value in content.items() if value is not None}


def _read_environment() -> dict[str, Any]:
    for variable in sorted(os.environ):
        section = variable.removeprefix(ENV_PREFIX).split("__")[0].lower()
        if (
            not variable.startswith(ENV_PREFIX)
            or variable in OTHER_VARIABLES
            or section in Settings.model_fields
        ):
            continue
        nearest = _nearest(section, list(Settings.model_fields))
        raise ConfigError(
            f"unknown variable {variable}{nearest and f': did you mean {ENV_PREFIX}{nearest.upper()}?'}"
        )
    try:
        return EnvSettingsSource(Settings)()
    except SettingsError as error:
        raise ConfigError(
            f"a {ENV_PREFIX}* variable can't be read: {error}; lists and maps are JSON"
        ) from None


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _given(flags: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _given(value) if isinstance(value, Mapping) else value
        for key, value in flags.items()
        if value is not None
    }


def _explain(detail: ErrorDetails) -> str:
    path = detail["loc"]
    where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    if detail["type"] != "extra_forbidden":
        message = detail["msg"].removeprefix("Value error, ")
        return f"{where}: {message}" if where else message
    nearest = _nearest(str(path[-1]), list(_model_at(path[:-1]).model_fields))
    parent = where.removesuffix(str(path[-1]))
    return f"unknown key {where}{nearest and f': did you mean {parent}{nearest}?'}"


def _model_at(path: Sequence[str | int]) -> type[BaseModel]:
    model: type[BaseModel] = Settings
    for part in path:
        if isinstance(part, str):
            annotation = model.model_fields[part].annotation
            model = next(kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type))
    return model


def _nearest(key: str, known: Sequence[str]) -> str:
    """Return the known key that looks most like `key`."""
    return max(known, key=lambda name: difflib.SequenceMatcher(None, key.lower(), name).ratio())
