"""`scalesimd calibrate` finds out the costs of an engine whose costs are known: an emulated one, in real time."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer
from scalesim_adapters.emulator.config import CostModel
from scalesim_daemon.cli import app
from scalesim_daemon.whatif.calibrate import CalibrationError, Programme, measure, prepare
from scalesim_daemon.whatif.costs import load_costs

# Slow enough that what the emulator itself takes for a step, some milliseconds, matters little.
KNOWN = CostModel(step=0.03, prefill_token=0.0006, decode_request=0.008)
BLOCKS, BLOCK_TOKENS = 200, 32


@pytest.fixture
def engine() -> Iterator[EmulatorServer]:
    config = EmulatorConfig(
        blocks=BLOCKS, block_size=BLOCK_TOKENS, max_model_len=512, cost=KNOWN, time_scale=1.0
    )
    with EmulatorServer(config) as server:
        yield server


def told(*arguments: str, answers: str | None = None) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["calibrate", *arguments], input=answers)
    return done.exit_code, done.stdout, done.stderr


def test_known_costs_are_recovered(engine: EmulatorServer, tmp_path: Path) -> None:
    out = tmp_path / "costs.yaml"
    code, said, _ = told(engine.url, "--out", str(out), "--yes")
    assert code == 0
    assert "requests of random token ids" in said and str(out) in said
    # One request of one token is how any engine is asked what its answers tell.
    assert _answered(engine.url) == 1 + int(said.split()[2])
    found = load_costs(str(out))
    assert found.prefill_token_seconds == pytest.approx(KNOWN.prefill_token, rel=0.1)
    assert found.step_seconds == pytest.approx(KNOWN.step, rel=0.3)
    assert found.decode_request_seconds == pytest.approx(KNOWN.decode_request, rel=0.3)
    assert (found.block_tokens, found.device_tokens) == (BLOCK_TOKENS, BLOCKS * BLOCK_TOKENS)
    assert found.host_token_seconds is None
    assert engine.url in found.source


def test_what_will_be_sent_is_said_and_nothing_is_without_consent(
    engine: EmulatorServer, tmp_path: Path
) -> None:
    code, said, _ = told(engine.url, "--out", str(tmp_path / "costs.yaml"), answers="n\n")
    assert code == 1
    assert "at most 4 at once" in said
    taken, cache = re.findall(r"at most ([\d,]+) of the ([\d,]+) tokens", said)[0]
    assert int(taken.replace(",", "")) < 0.7 * int(cache.replace(",", "")) == 0.7 * BLOCKS * BLOCK_TOKENS
    assert not (tmp_path / "costs.yaml").exists()
    assert _answered(engine.url) == 1


def _answered(url: str) -> int:
    lines = httpx.get(f"{url}/metrics", timeout=10).text.splitlines()
    return sum(
        int(float(line.split()[-1])) for line in lines if line.startswith("vllm:request_success_total")
    )


def test_a_busy_engine_is_left_alone(engine: EmulatorServer) -> None:
    async def scene(programme: Programme) -> None:
        body = {"model": "base", "prompt": [7] * 64, "max_tokens": 300, "ignore_eos": True}
        async with httpx.AsyncClient(base_url=engine.url, timeout=60) as client:
            other = asyncio.create_task(client.post("/v1/completions", json=body))
            running = 0
            while not running:
                lines = (await client.get("/metrics")).text.splitlines()
                running = sum(
                    "1.0" in line for line in lines if line.startswith("vllm:num_requests_running{")
                )
            with pytest.raises(CalibrationError, match="is serving requests"):
                await measure(programme, lambda what: None)
            other.cancel()

    asyncio.run(scene(asyncio.run(prepare(engine.url))))


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense"])
def test_nobody_there_is_explained(url: str, tmp_path: Path) -> None:
    code, said, problem = told(url, "--out", str(tmp_path / "costs.yaml"), "--yes")
    assert code == 2 and said == ""
    assert problem.startswith("scalesimd: ") and "Traceback" not in problem


def test_an_engine_too_small_to_time_is_left_alone() -> None:
    with (
        EmulatorServer(EmulatorConfig(blocks=8, block_size=16, max_model_len=128)) as server,
        pytest.raises(CalibrationError, match="too short to time"),
    ):
        asyncio.run(prepare(server.url))
