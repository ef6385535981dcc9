"""The digest of a model's or a LoRA's files: equal where nothing has changed, and else another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scalesim_adapters.weightfiles import weights_digest


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"hidden_size": 8}')
    (tmp_path / "adapter_config.json").write_text('{"r": 8}')
    (tmp_path / "model.safetensors").write_bytes(bytes(1 << 20))
    return tmp_path


def test_the_same_files_have_the_same_digest_wherever_they_lie(model: Path, tmp_path: Path) -> None:
    before = weights_digest(model)
    assert weights_digest(model) == before
    link = tmp_path.parent / f"{tmp_path.name}-link"
    link.symlink_to(model)
    assert weights_digest(link) == before


@pytest.mark.parametrize("change", ["config.json", "adapter_config.json", "bytes", "size", "time", "name"])
def test_each_change_gives_another(model: Path, change: str) -> None:
    before = weights_digest(model)
    weights = model / "model.safetensors"
    status = weights.stat()
    if change == "bytes":
        with weights.open("r+b") as file:
            file.seek(1 << 19)
            file.write(b"\1")
    elif change == "size":
        weights.write_bytes(bytes((1 << 20) + 1))
    elif change == "name":
        weights.rename(model / "other.safetensors")
    elif change != "time":
        (model / change).write_text("{}")
    if change == "time":
        os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    elif weights.exists():
        os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert weights_digest(model) != before


def test_without_files_nothing_is_the_same_twice(tmp_path: Path) -> None:
    assert weights_digest(tmp_path) != weights_digest(tmp_path)
    assert weights_digest(tmp_path / "hub" / "name") != weights_digest(tmp_path / "hub" / "name")
