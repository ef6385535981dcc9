"""The kinds of engines that the daemon drives, each with its adapter."""

from __future__ import annotations

import re

from scalesim_adapters.base import EngineAdapter
from scalesim_adapters.openai.adapter import OpenaiAdapter
from scalesim_adapters.sglang.adapter import SglangAdapter
from scalesim_adapters.vllm.adapter import VllmAdapter
from scalesim_daemon.setting_sources import read_secret
from scalesim_daemon.settings import ConfigError, EngineSettings

API_KEY = re.compile(r"[!-~]{1,512}")


def connect(engine: EngineSettings, sender: str | None = None) -> EngineAdapter:
    """Return an adapter for one engine. It connects when it is asked something. Our requests' ids have `sender`, by
    default the engine's name. Raises `ConfigError` where its API key can't be read or sent."""
    name, key = sender or engine.name, api_key_of(engine)
    match engine.kind:
        case "vllm":
            return VllmAdapter(engine.url, name=name, api_key=key)
        case "sglang":
            return SglangAdapter(engine.url, name=name, api_key=key, tagged=engine.tagged)
        case "openai":
            return OpenaiAdapter(
                engine.url, name=name, api_key=key, prompt_slots=engine.prompt_slots, tagged=engine.tagged
            )


def api_key_of(engine: EngineSettings) -> str | None:
    """Return what the engine's server asks for as a bearer token, None for nothing. Raises `ConfigError`."""
    where = f"engines: {engine.name}: api_key"
    if engine.api_key_file is not None:
        where += "_file"
        key = read_secret(where, engine.api_key_file)
    elif engine.api_key is not None:
        key = engine.api_key.get_secret_value()
    else:
        return None
    if not API_KEY.fullmatch(key):
        raise ConfigError(f"{where}: a key has 1 to 512 letters, digits and signs of ASCII, and no blanks")
    return key
