"""Each kind of engine gets its adapter."""

from __future__ import annotations

import pytest

from scalesim_adapters.sglang.adapter import SglangAdapter
from scalesim_adapters.vllm.adapter import VllmAdapter
from scalesim_daemon.engines import connect
from scalesim_daemon.setting_sources import load_settings, parse_engine
from scalesim_daemon.settings import ConfigError


@pytest.mark.parametrize(("kind", "adapter"), [("vllm", VllmAdapter), ("sglang", SglangAdapter)])
def test_a_flag_names_the_kind_and_the_kind_the_adapter(kind: str, adapter: type) -> None:
    flag = parse_engine(f"{kind}=http://127.0.0.1:30000/")
    (engine,) = load_settings(None, {"engines": [flag]}).engines
    assert (engine.kind, engine.name, engine.tagged) == (kind, f"{kind}-127.0.0.1-30000", False)
    assert type(connect(engine)) is adapter


def test_an_engine_of_no_kind() -> None:
    with pytest.raises(ConfigError, match="'vllm', 'sglang' or 'openai'"):
        load_settings(None, {"engines": [parse_engine("llama=http://127.0.0.1:30000")]})
