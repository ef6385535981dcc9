"""The folders of LoRAs, the links to them, and room for copies."""

from __future__ import annotations

import os
from pathlib import Path


def target(link: Path) -> Path | None:
    """Return where a link points to, None where there is none."""
    try:
        return link.readlink()
    except OSError:
        return None


def files_of(folder: Path) -> list[Path]:
    """Return what a copy takes: no engine looks into subdirectories, where training leaves its checkpoints."""
    return [path for path in sorted(folder.iterdir()) if path.is_file()] if folder.is_dir() else []


def bytes_of(folder: Path) -> int:
    """Return how much a copy takes."""
    return sum(path.stat().st_size for path in files_of(folder))


def make_folder(path: Path, like: Path) -> None:
    """Make a folder that no more users can enter than one that it is `like`."""
    path.mkdir(mode=like.stat().st_mode & 0o777 | 0o700)


def allocate(path: Path, like: Path) -> None:
    """Make a file as large as one that it is `like`, which no more users can read, and which can be written without
    running out of room."""
    status = like.stat()
    with os.fdopen(
        os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, status.st_mode & 0o777 | 0o600), "wb"
    ) as file:
        if status.st_size:
            os.posix_fallocate(file.fileno(), 0, status.st_size)


def give(copy: Path, like: Path) -> None:
    """Let those have a copy who have what it is `like` by its group or, where the daemon may say so, as its owner.
    Raises `OSError` where the group has rights there that it can't have here."""
    status = like.stat()
    try:
        os.chown(copy, status.st_uid if os.geteuid() == 0 else -1, status.st_gid)
    except OSError:
        # An engine of another user may have it by its group alone: better no copy than one that it can't read.
        if status.st_mode & 0o070 and not status.st_mode & 0o007:
            raise
