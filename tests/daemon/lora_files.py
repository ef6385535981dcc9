"""LoRAs of one size on disk, and a look at what the library makes of them."""

from __future__ import annotations

from pathlib import Path

BYTES = 2000
CONFIG = b'{"r": 8}'


def make_lora(directory: Path, fill: bytes, size: int = BYTES) -> Path:
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_bytes(CONFIG)
    (directory / "adapter_model.safetensors").write_bytes(fill * (size - len(CONFIG)))
    return directory


def weights(link: Path) -> bytes:
    return (link / "adapter_model.safetensors").read_bytes()


def staged_copies(tmp_path: Path) -> list[str]:
    return sorted(path.name for part in (tmp_path / "staging").iterdir() for path in part.iterdir())
