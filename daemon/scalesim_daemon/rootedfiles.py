"""Files that are read from below roots and from nowhere else, whatever is exchanged for a link meanwhile."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path


def open_below(path: Path, roots: Sequence[Path] | None) -> BufferedReader:
    """Open a file to read that lies, all links followed, under one of `roots`, or anywhere where these are None. What
    stands at a path may be exchanged between a look and the next: what counts is where that lies which was opened.
    Raises `OSError`, also for what is no file: a pipe would be waited for."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    lies = Path(f"/proc/self/fd/{file.fileno()}").readlink()
    inside = roots is None or any(lies.is_relative_to(root) for root in roots)
    if inside and stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        return file
    file.close()
    raise PermissionError(errno.EACCES, f"{path} has become {lies}, which is no file below the roots")


def fill(path: Path, original: BufferedReader, at_once: int) -> None:
    """Copy into a file as much as that has room for: what grows meanwhile takes no more."""
    room = path.stat().st_size
    with path.open("r+b") as copy:
        while room and (chunk := original.read(min(room, at_once))):
            copy.write(chunk)
            room -= len(chunk)
