"""Named shared memory: a file, fully allocated when it is created, mapped by whoever holds its lock.

The file lies in /dev/shm or in any other folder. Its content stays when a process ends; the lock doesn't.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import stat
from pathlib import Path

MODE = 0o600
MAGIC = b"SCALESIM"
"""What the content of a segment begins with, where it has any."""


class SegmentError(OSError):
    """A segment can't be had; the text says why and what to do."""


class NoRoom(SegmentError):
    """The file system has too little room for the segment."""


class InUse(SegmentError):
    """Another process holds the segment."""


class Segment:
    """One segment, mapped and locked by this process until `close` or the process's end.

    `buffer` is its memory, of exactly `size` bytes, every one of them allocated: writing never raises SIGBUS.
    """

    def __init__(self, path: Path, size: int) -> None:
        """Open the segment at `path`; where there is none, or one of another size, create it.

        Raises `NoRoom`, `InUse`, or `SegmentError` where the file isn't ours to use.
        """
        self.path = path
        self.size = size
        self._file = _locked(path)
        try:
            _allocate(self._file, path, size)
            self.buffer = mmap.mmap(self._file, size)
        except BaseException:
            os.close(self._file)
            raise

    def close(self) -> None:
        """Unmap and unlock it; the content stays. Raises `BufferError` where a view of `buffer` still lives."""
        self.buffer.close()
        os.close(self._file)


def provide(path: Path, size: int) -> None:
    """See to it that the segment at `path` is there, whole, for a process of this user to open. One that is there with
    this size stays as it is, whoever holds it. Raises what `Segment` raises."""
    if not _is_whole(path, size):
        Segment(path, size).close()


def held(path: Path) -> bool:
    """Tell whether a process holds the segment at `path` now."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _locked(path: Path) -> int:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, MODE)
    except OSError as error:
        raise SegmentError(error.errno, f"the segment {path} can't be opened: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise SegmentError(errno.EINVAL, f"{path} is no file: name another as the segment")
        if status.st_uid != os.geteuid():
            raise SegmentError(errno.EPERM, f"the segment {path} belongs to another user: name another")
        os.fchmod(file, MODE)
    except BlockingIOError as error:
        os.close(file)
        raise InUse(errno.EBUSY, f"the segment {path} is used by another process: name another") from error
    except BaseException:
        os.close(file)
        raise
    return file


def _is_whole(path: Path, size: int) -> bool:
    try:
        status = path.lstat()
    except OSError:
        return False
    private = stat.S_IFREG | MODE
    return (status.st_mode, status.st_uid) == (private, os.geteuid()) and _is_allocated(status, size)


def _is_allocated(status: os.stat_result, size: int) -> bool:
    return status.st_size == size and status.st_blocks * 512 >= size


def _allocate(file: int, path: Path, size: int) -> None:
    if _is_allocated(os.fstat(file), size):
        return
    if os.pread(file, len(MAGIC), 0) not in (b"", MAGIC, bytes(len(MAGIC))):
        raise SegmentError(
            errno.EEXIST, f"{path} is no segment: name another, or remove it if nobody needs it"
        )
    os.ftruncate(file, 0)
    space = os.fstatvfs(file)
    free = space.f_bavail * space.f_frsize
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        os.ftruncate(file, 0)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise NoRoom(
            errno.ENOSPC,
            f"the segment {path} needs {size:,} bytes and {path.parent} has {free:,} free: "
            "enlarge that file system (docker run --shm-size), take another folder, or a smaller segment",
        ) from error
