"""Which weights may take the place of others in a running engine. Standard library only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

# What differs between two files of one architecture and changes nothing that is computed.
NAMES = {"_name_or_path", "transformers_version", "dtype", "torch_dtype"}


def swap_refusal(now: Path, then: Path) -> str | None:
    """Return why the weights of the model in the folder `then` can't replace those of `now` in place; None where they
    can.

    Both must have the same shape, the same tensors and the same tokenizer: an engine loads what it finds, keeps the
    old values of tensors it doesn't find, and goes on with the tokenizer that it was started with.
    """
    for folder in (now, then):
        if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
            return f"{folder} has no config.json or no *.safetensors"
    try:
        if _shape(now) != _shape(then):
            return f"{then} is of another architecture than {now}"
        if _tensors(now) != _tensors(then):
            return f"{then} has other tensors than {now}"
    except (OSError, ValueError) as error:
        return f"{then} or {now} can't be read: {error}"
    if _tokenizer(now) != _tokenizer(then):
        return f"{then} has another tokenizer than {now}"
    return None


def _shape(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return {key: value for key, value in config.items() if key not in NAMES}


def _tensors(folder: Path) -> dict[str, list[int]]:
    """Return the shape of each tensor, from the headers: 8 bytes of length, little-endian, then JSON
    (https://huggingface.co/docs/safetensors)."""
    shapes: dict[str, list[int]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        shapes |= {name: tensor["shape"] for name, tensor in header.items() if name != "__metadata__"}
    return shapes


def _tokenizer(folder: Path) -> bytes | None:
    path = folder / "tokenizer.json"
    return path.read_bytes() if path.is_file() else None
