"""Reading a LoRA's files as far as an engine would notice what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

from scalesim_adapters.emulator.loras import LoraUnreadable


def read_lora(path: str, max_rank: int) -> int:
    """Return the size in bytes of the weights of the LoRA in folder `path`.

    Raises `LoraUnreadable`, with vLLM's words for the reason, where it has no configuration (`missing`), its
    rank is over `max_rank`, or its weights are absent or end too early.
    """
    folder = Path(path)
    try:
        config = json.loads((folder / "adapter_config.json").read_bytes())
        rank = int(config["r"])
    except (FileNotFoundError, NotADirectoryError):
        raise LoraUnreadable(f"No adapter found for {path}", missing=True) from None
    except (ValueError, KeyError, TypeError) as error:
        raise LoraUnreadable(str(error)) from error
    if rank > max_rank:
        raise LoraUnreadable(f"LoRA rank {rank} is greater than max_lora_rank {max_rank}.")
    weights = folder / "adapter_model.safetensors"
    try:
        size = weights.stat().st_size
        with weights.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
    except FileNotFoundError:
        raise LoraUnreadable(f"{path} doesn't contain tensors") from None
    if size < 8 or header > size - 8:
        raise LoraUnreadable("Error while deserializing header: invalid header length")
    return size
