"""Small file systems in memory, which can be filled; they go with the process that mounted them."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

CLONE_NEWNS = 0x00020000
MIB = 1 << 20
DISK_BYTES = 24 * MIB
SHM_BYTES = 4 * MIB
BALLAST = "ballast"


def own_mounts() -> str | None:
    """Let what this process mounts be seen by it and its children alone; return why that can't be, if so."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS):
        return f"no mounts of one's own here: {os.strerror(ctypes.get_errno())}"
    private = subprocess.run(["mount", "--make-rprivate", "/"], capture_output=True, text=True)
    return private.stderr.strip() or None if private.returncode else None


def mount(folder: Path, size: int) -> None:
    """Mount an empty file system of `size` bytes at a new folder."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "scalesim-chaos", str(folder)]
    subprocess.run(command, check=True, capture_output=True)


def unmount(folder: Path) -> None:
    """Let go of it, whoever still has files open there."""
    subprocess.run(["umount", "--lazy", str(folder)], capture_output=True)


def fill(folder: Path) -> None:
    """Take all that is left."""
    with (folder / BALLAST).open("wb", buffering=0) as ballast:
        chunk = bytes(MIB)
        while chunk:
            try:
                ballast.write(chunk)
            except OSError:
                chunk = chunk[: len(chunk) // 2]


def drain(folder: Path) -> None:
    """Give it back."""
    (folder / BALLAST).unlink(missing_ok=True)


def files_below(folder: Path) -> set[str]:
    """Return all that lies below a folder, as relative paths."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
