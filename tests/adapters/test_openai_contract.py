"""The contract of engine adapters, on the emulator through the adapter for any OpenAI-compatible engine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from scalesim_adapters.base import Capability
from scalesim_adapters.emulator import EmulatorConfig, EmulatorServer
from scalesim_adapters.openai.adapter import OpenaiAdapter
from tests.adapters.contract import BLOCK, Subject
from tests.adapters.contract_basics import BasicContract
from tests.adapters.emulator_rig import make_lora


def start(folder: Path) -> Iterator[Subject]:
    config = EmulatorConfig(blocks=160, block_size=BLOCK, max_model_len=4096, time_scale=0.3)
    with EmulatorServer(config) as server:
        yield Subject(
            connect=lambda: OpenaiAdapter(server.url, name="contract"),
            base=config.model,
            device_blocks=None,
            max_model_len=config.max_model_len,
            loras=(make_lora(folder / "lora"),),
            kill=server.kill,
            restart=server.restart,
            engine="openai",
            version="unknown",
            block_size=None,
            prefix=Capability.LOAD,
            lora=Capability.NONE,
            missing=("an account of what is cached", "counts of requests"),
        )


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    yield from start(tmp_path_factory.mktemp("openai"))


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    yield from start(tmp_path_factory.mktemp("mortal"))


class TestOpenai(BasicContract):
    """Every test that needs no events and no LoRAs."""
