"""How the C library keeps what tables have outgrown."""

from __future__ import annotations

import ctypes
from contextlib import suppress

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 128 * 1024


def map_large_blocks() -> None:
    """Have every block from 128 KiB on mapped by itself: one that grows is moved by the kernel, without a copy, and
    what it leaves goes back to the system.

    That is how glibc begins, but with the first such block that is freed it raises the bound up to 32 MiB: from then on
    the tables of a growing population leave holes as large as what is in use. Where there is no glibc nothing is done.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
