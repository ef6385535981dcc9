"""What makes a folder a LoRA that an engine can read, in the form that PEFT writes. Standard library only."""

from __future__ import annotations

from pathlib import Path

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")


def supersedes(new: str, old: str) -> bool:
    """Whether a path takes the place of another one under which a LoRA's name is known: both are the daemon's links to
    it, which lie side by side and end with a hash of what they lead to."""
    return new != old and new.rpartition("-")[0] == old.rpartition("-")[0] != ""


def lacks(folder: Path) -> str | None:
    """Return what a folder lacks to be a LoRA, None where it lacks nothing."""
    if not (folder / CONFIG).is_file():
        return f"no {CONFIG}"
    if not any((folder / name).is_file() for name in WEIGHTS):
        return f"none of {', '.join(WEIGHTS)}"
    return None
