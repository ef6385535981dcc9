"""What makes a folder a LoRA that an engine can read, in the form that PEFT writes. Standard library only."""

from __future__ import annotations

import re
from pathlib import Path

CONFIG = "adapter_config.json"
DIGITS = 12
LINK = re.compile(rf"-[0-9a-f]{{{DIGITS}}}$")
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")


def supersedes(new: str, old: str) -> bool:
    """Whether a path takes the place of another one under which a LoRA's name is known: both are the daemon's links to
    it, which lie side by side."""
    return new != old and tells_content(new) and tells_content(old) and new[:-DIGITS] == old[:-DIGITS]


def tells_content(path: str) -> bool:
    """Whether a path ends with the hash of what it leads to, as the daemon's links do."""
    return LINK.search(path) is not None


def lacks(folder: Path) -> str | None:
    """Return what a folder lacks to be a LoRA, None where it lacks nothing."""
    if not (folder / CONFIG).is_file():
        return f"no {CONFIG}"
    if not any((folder / name).is_file() for name in WEIGHTS):
        return f"none of {', '.join(WEIGHTS)}"
    return None
