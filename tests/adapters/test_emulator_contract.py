"""The contract of engine adapters, on the emulator through the vLLM adapter."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scalesim_adapters.emulator import EmulatorServer
from scalesim_adapters.vllm.adapter import VllmAdapter
from tests.adapters.contract import BLOCK, EngineContract, Subject
from tests.adapters.emulator_rig import feed_config, make_lora

BLOCKS = 160
MAX_MODEL_LEN = 4096
# A request of the whole context takes most of a second, long enough to be cut off in its midst.
TIME_SCALE = 0.3


@pytest.fixture(scope="module")
def loras(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    folder = tmp_path_factory.mktemp("loras")
    return tuple(make_lora(folder / f"lora{index:02}") for index in range(6))


def start(run: Path, loras: tuple[Path, ...]) -> Iterator[Subject]:
    config = feed_config(
        run,
        blocks=BLOCKS,
        block_size=BLOCK,
        max_model_len=MAX_MODEL_LEN,
        max_num_batched_tokens=256,
        time_scale=TIME_SCALE,
    )
    with EmulatorServer(config) as server:
        yield Subject(
            connect=lambda: VllmAdapter(server.url, name="contract"),
            base=config.model,
            device_blocks=BLOCKS,
            max_model_len=MAX_MODEL_LEN,
            loras=loras,
            kill=server.kill,
            restart=server.restart,
        )


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory, loras: tuple[Path, ...]) -> Iterator[Subject]:
    yield from start(tmp_path_factory.mktemp("emulator"), loras)


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory, loras: tuple[Path, ...]) -> Iterator[Subject]:
    yield from start(tmp_path_factory.mktemp("mortal"), loras)


class TestEmulator(EngineContract):
    """Every test of the contract."""
