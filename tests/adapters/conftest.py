"""What the tests of adapters share."""

from pathlib import Path

import pytest

from scalesim_adapters.base import LoraItem


@pytest.fixture
def lora(tmp_path: Path) -> LoraItem:
    """A LoRA that holds nothing but has its files."""
    path = tmp_path / "lora00"
    path.mkdir()
    (path / "adapter_config.json").write_text("{}")
    (path / "adapter_model.safetensors").touch()
    return LoraItem("lora00", path)
