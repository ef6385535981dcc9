"""How long requests wait for their first token, as engines count it in a histogram."""

from __future__ import annotations

import urllib.request

import pytest

from scalesim_adapters import metrics
from scalesim_adapters.base import FirstTokens, ProtocolMismatch
from scalesim_adapters.emulator import EmulatorServer
from scalesim_adapters.sglang import adapter as sglang
from scalesim_adapters.vllm import metrics as vllm

VLLM = """\
vllm:num_requests_running{engine="0",model_name="base"} 0.0
vllm:num_requests_running{engine="1",model_name="base"} 0.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="base"} 1.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="base"} 3.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="base"} 0.75
vllm:time_to_first_token_seconds_count{engine="1",model_name="base"} 1.0
vllm:time_to_first_token_seconds_sum{engine="1",model_name="base"} 0.5
"""
SGLANG = """\
sglang:time_to_first_token_seconds_count{is_streaming="true",model_name="base"} 2.0
sglang:time_to_first_token_seconds_sum{is_streaming="true",model_name="base"} 0.25
sglang:time_to_first_token_seconds_count{is_streaming="false",model_name="base"} 1.0
sglang:time_to_first_token_seconds_sum{is_streaming="false",model_name="base"} 0.5
"""


def test_everything_that_is_counted_apart_is_added_up() -> None:
    assert vllm.pressure(vllm.parse(VLLM)).first_tokens == FirstTokens(4, 1.25)
    samples = metrics.parse(SGLANG, sglang._WANTED)
    assert metrics.first_tokens(samples, sglang.FIRST_TOKENS) == FirstTokens(3, 0.75)


def test_an_engine_may_not_tell() -> None:
    assert vllm.pressure(vllm.parse(VLLM.replace("first_token", "last_token"))).first_tokens is None
    assert metrics.first_tokens({}, sglang.FIRST_TOKENS) is None
    with pytest.raises(ProtocolMismatch):
        vllm.pressure(vllm.parse(VLLM.replace("_count{", '_count{x="y",').replace(" 3.0", " NaN")))


def test_the_emulated_engine_tells_as_vllm_does() -> None:
    with EmulatorServer() as engine:
        body = b'{"model": "base", "prompt": [1, 2, 3], "max_tokens": 3}'
        request = urllib.request.Request(
            f"{engine.url}/v1/completions", body, {"Content-Type": "application/json"}
        )
        for asked in range(1, 3):
            with urllib.request.urlopen(request):
                pass
            with urllib.request.urlopen(f"{engine.url}/metrics") as answer:
                told = vllm.pressure(vllm.parse(answer.read().decode())).first_tokens
            assert told is not None and told.count == asked and 0 < told.seconds < 10
