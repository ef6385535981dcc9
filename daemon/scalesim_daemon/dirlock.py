"""One daemon per directory: a lock that ends with the last process that holds it, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class DirectoryInUse(Exception):
    """Another process works in the directory."""


def lock_directory(directory: Path) -> int:
    """Lock `directory` and return the lock's file descriptor; raise `DirectoryInUse` where it is locked.

    Closing the descriptor, here and in every process that inherited it, frees the directory.
    """
    descriptor = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise DirectoryInUse(f"{directory} is in use by another process") from None
    return descriptor
