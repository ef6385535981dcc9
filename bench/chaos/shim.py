"""A daemon's wall clock and disk in the bench's hands: `shim.c`, loaded before libc."""

from __future__ import annotations

import functools
import mmap
import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_name("shim.c")
_FORM = struct.Struct("qqqqqq")
_CHANGED = struct.Struct("qq")


class Felt(NamedTuple):
    """What the shim has counted so far: looks at a clock that was off, calls that took longer, and calls for which
    there was no room, below the disk and elsewhere."""

    misled: int
    delayed: int
    refused_disk: int
    refused_elsewhere: int


@functools.cache
def compiled() -> Path | None:
    """Return the shim for this machine, compiled once a process; None where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    library = (
        Path(tempfile.gettempdir()) / f"scalesim-chaos-shim-{os.getuid()}-{SOURCE.stat().st_mtime_ns}.so"
    )
    if not library.exists():
        fresh = library.with_suffix(f".{os.getpid()}")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O2", "-o", str(fresh), str(SOURCE), "-ldl"], check=True
        )
        fresh.replace(library)
    return library


class Shim:
    """What one daemon's processes read: their clock is `offset` seconds off, and each read, write and sync below `disk`
    takes `delay` seconds longer."""

    def __init__(self, library: Path, control: Path, disk: Path) -> None:
        control.write_bytes(bytes(_FORM.size))
        with control.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _FORM.size)
        self.environment = {
            "LD_PRELOAD": str(library),
            "CHAOS_CONTROL": str(control),
            "CHAOS_DISK": str(disk),
        }

    def set(self, *, offset: float = 0.0, delay: float = 0.0) -> None:
        """Let this hold from now on, in seconds."""
        _CHANGED.pack_into(self._shared, 0, int(offset * 1e9), int(delay * 1e9))

    def felt(self) -> Felt:
        """Return what was counted."""
        return Felt(*_FORM.unpack_from(self._shared)[2:])

    def close(self) -> None:
        """Let go of the file."""
        self._shared.close()
