"""Which weights may take the place of others: only those of which nothing but the values differs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scalesim_adapters.vllm.plugin.weights import swap_refusal

CONFIG = {"architectures": ["Some"], "hidden_size": 4, "dtype": "float32"}
TENSORS = {"a": [2, 2], "b": [4]}


def model(folder: Path, name: str, tensors: dict[str, list[int]] | None = None, **config: Any) -> Path:
    """Make a model's folder; the tensors lie in two files."""
    path = folder / name
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG | config))
    (path / "tokenizer.json").write_text("{}")
    for number, (tensor, shape) in enumerate((tensors or TENSORS).items()):
        header = {"__metadata__": {}, tensor: {"dtype": "F32", "shape": shape, "data_offsets": [0, 1]}}
        raw = json.dumps(header).encode()
        (path / f"model-{number}.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + b"\0")
    return path


def test_the_same_shape_may_be_exchanged(tmp_path: Path) -> None:
    now, then = model(tmp_path, "now"), model(tmp_path, "then", dtype="bfloat16", transformers_version="9")
    assert swap_refusal(now, then) is None
    (now / "tokenizer.json").unlink()
    (then / "tokenizer.json").unlink()
    assert swap_refusal(now, then) is None


def test_another_shape_or_tokenizer_may_not(tmp_path: Path) -> None:
    now = model(tmp_path, "now")
    assert "architecture" in str(swap_refusal(now, model(tmp_path, "wide", hidden_size=8)))
    assert "tensors" in str(swap_refusal(now, model(tmp_path, "fewer", {"a": [2, 2]})))
    assert "tensors" in str(swap_refusal(now, model(tmp_path, "other", {"a": [2, 3], "b": [4]})))
    words = model(tmp_path, "words")
    (words / "tokenizer.json").write_text("[]")
    assert "tokenizer" in str(swap_refusal(now, words))


@pytest.mark.parametrize("raw", [b"", b"\x04\0\0\0\0\0\0\0abc", b"\x02\0\0\0\0\0\0\0{}"])
def test_what_is_no_model_may_not(tmp_path: Path, raw: bytes) -> None:
    now, broken = model(tmp_path, "now"), model(tmp_path, "broken")
    for path in broken.glob("*.safetensors"):
        path.write_bytes(raw)
    for pair in ((now, broken), (now, tmp_path), (tmp_path, now), (now, tmp_path / "nowhere")):
        assert swap_refusal(*pair) is not None
