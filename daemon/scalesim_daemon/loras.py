"""Stable links that engines load LoRAs from, and copies of the LoRAs in host memory behind them.

A link's name carries its content's hash, so that one path always means the same weights. It points to a
complete directory at every moment, with or without the daemon: a copy is complete before a link points to it,
and a link points to the original again before the copy goes. `.originals` has each link's original on record.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from io import BufferedReader
from itertools import chain
from pathlib import Path
from threading import Lock
from time import sleep

import structlog

from scalesim_adapters import lorafiles
from scalesim_daemon.dirlock import DirectoryInUse, lock_directory
from scalesim_daemon.rootedfiles import fill, open_below
from scalesim_daemon.settings import ConfigError, LoraSettings

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
COPIED_AT_ONCE = 1 << 20
# A reader that has just followed a link may not have opened the file behind it yet.
READERS_SECONDS = 0.05

log = structlog.get_logger(__name__)


class LoraError(ValueError):
    """A LoRA can't be linked or staged as asked; what links point to has not changed."""


class NoRoom(LoraError):
    """The copy doesn't fit into the staging budget, or into the staging directory's file system."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What `recover` found: how many `links` are whole; the LoRAs `repaired`, whose link points to the
    original again; those `broken`, whose original is gone or changed; how many copies were `dropped`."""

    links: int
    repaired: tuple[str, ...]
    broken: tuple[str, ...]
    dropped: int


@dataclass(frozen=True, slots=True)
class _Entry:
    name: str
    link: Path
    original: Path
    bytes: int


class LoraLibrary:
    """The links in `links_dir` and the copies in `staging_dir`, together at most `staging_bytes`. A LoRA and its files,
    all symbolic links followed, lie under one of `roots`; None: anywhere.

    Methods that touch files block, may run in any thread, and raise `LoraError` or `OSError`.
    """

    def __init__(
        self, links_dir: Path, staging_dir: Path, staging_bytes: int, roots: Sequence[Path] | None = None
    ) -> None:
        self._roots = None if roots is None else [root.resolve() for root in roots]
        self._links = links_dir.absolute()
        self._records = self._links / ".originals"
        self._work = self._links / ".work"
        # Libraries with other links may stage into the same directory: each has its own part of it.
        part = hashlib.sha256(os.fsencode(self._links)).hexdigest()[: lorafiles.DIGITS]
        self._staging = staging_dir.absolute()
        self._copies = self._staging / part
        self._copying = self._staging / f"{part}.part"
        self._budget = staging_bytes
        self._mutex = Lock()
        self._locked: int | None = None
        self._entries: dict[str, _Entry] = {}
        self._newest: dict[str, _Entry] = {}
        self._staged: dict[str, int] = {}
        self._hashes: dict[tuple[int, int, int, int], str] = {}

    @classmethod
    def open(cls, settings: LoraSettings, roots: Sequence[Path] | None = None) -> LoraLibrary:
        """Return a recovered library. Raises `ConfigError` where its directories can't be used."""
        library = cls(settings.links_dir, settings.staging_dir, settings.staging_bytes, roots)
        try:
            found = library.recover()
        except (DirectoryInUse, LoraError, OSError) as error:
            raise ConfigError(f"loras: {error}") from error
        if found.repaired or found.broken or found.dropped:
            log.warning("LoRA links recovered", **asdict(found))
        return library

    def inventory(self) -> tuple[dict[str, tuple[Path, int, bool]], int]:
        """Return each LoRA's link, its size in bytes and whether it is staged, by name; and the bytes free in the
        budget. Touches no file."""
        known = {
            name: (entry.link, entry.bytes, entry.link.name in self._staged)
            for name, entry in list(self._newest.items())
        }
        return known, self._free

    def path(self, name: str) -> Path:
        """Return the link to load a LoRA from."""
        return self._entry(name).link

    def link(self, name: str, original: Path) -> Path:
        """Make or find the stable link of the LoRA in `original`: the same one for the same content."""
        original = self._allowed(name, original)
        if self._staging in original.parents or self._links in original.parents:
            raise LoraError(f"LoRA {name}: {original} is one of this daemon's own copies")
        with self._mutex:
            self._check_locked()
            link = self._links / f"{_slug(name)}-{self._content_hash(original)}"
            entry = _Entry(name, link, original, _size(original))
            if self._entries.get(link.name) != entry:
                self._write_record(entry)
            if not self._is_staged(link) and _target(link) != original:
                self._point(link, original)
            self._entries[link.name] = self._newest[name] = entry
            return link

    def stage(self, name: str) -> None:
        """Copy a LoRA to host memory and let its link point to the copy; `NoRoom` where it doesn't fit."""
        with self._mutex:
            self._check_locked()
            entry = self._entry(name)
            if self._is_staged(entry.link):
                return
            self._drop_copy(entry)
            self._allowed(name, entry.original)
            size = _size(entry.original)
            if size > self._free:
                raise NoRoom(
                    f"LoRA {name} has {size} bytes, {self._free} of {self._budget} for staging are free"
                )
            self._copy(entry)
            copy = self._copies / entry.link.name
            self._copying.rename(copy)
            self._staged[copy.name] = size
            self._point(entry.link, copy)

    def unstage(self, name: str) -> None:
        """Let all links of a LoRA point to the original again, then remove the copies.

        Refuses where the original is gone or has changed: then the copy alone is what the link's name says. The copy
        of what the LoRA was before it changed stays.
        """
        with self._mutex:
            self._check_locked()
            newest = self._entry(name)
            self._drop_copy(newest)
            for entry in self._entries.values():
                if entry.name == name and entry is not newest and self._is_true(entry.link, entry.original):
                    self._drop_copy(entry)

    def recover(self) -> Recovery:
        """Take the directories and read what links there are; let those that dangle point to their original,
        and then drop copies that no link points to. Raises `DirectoryInUse` where another daemon works."""
        with self._mutex:
            for directory in (self._links, self._records, self._work, self._copies):
                directory.mkdir(parents=True, exist_ok=True)
            self._check_owner()
            if self._locked is None:
                self._locked = lock_directory(self._links)
            repaired, broken = [], []
            for entry in self._read_records():
                try:
                    self._allowed(entry.name, entry.original)
                except (LoraError, OSError) as error:
                    log.warning("link to a LoRA no longer used", error=str(error))
                    # An engine may still have it by that link: it leads to the original, and its copy goes.
                    if _target(entry.link) not in (None, entry.original):
                        self._point(entry.link, entry.original)
                    continue
                if not self._is_whole(entry):
                    if not self._is_true(entry.link, entry.original):
                        broken.append(entry.name)
                        continue
                    self._point(entry.link, entry.original)
                    repaired.append(entry.name)
                self._entries[entry.link.name] = self._newest[entry.name] = entry
            dropped = self._drop_unused()
            return Recovery(len(self._entries), tuple(repaired), tuple(broken), dropped)

    def close(self) -> None:
        """Let another daemon have the directories. Links and copies stay as they are."""
        if self._locked is not None:
            os.close(self._locked)
            self._locked = None

    @property
    def _free(self) -> int:
        return max(0, self._budget - sum(list(self._staged.values())))

    def _entry(self, name: str) -> _Entry:
        try:
            return self._newest[name]
        except KeyError:
            raise LoraError(f"LoRA {name} is not linked") from None

    def _check_locked(self) -> None:
        if self._locked is None:
            raise LoraError("the library is closed: call recover first")

    def _check_owner(self) -> None:
        """Refuse a staging directory in which another user could exchange copies."""
        if self._staging.lstat().st_uid not in (0, os.geteuid()):
            raise LoraError(f"{self._staging} belongs to another user: set loras.staging_dir to your own")

    def _allowed(self, name: str, original: Path) -> Path:
        """Return where a LoRA really lies. Raises `LoraError` where that, or what one of its files is a link to, is
        outside the roots: before anything of it is read."""
        original = _real(name, original)
        if self._roots is None:
            return original
        for path in chain((original,), (_real(name, file) for file in _files(original))):
            if not any(path.is_relative_to(root) for root in self._roots):
                where = ", ".join(map(str, self._roots)) or "none is set, and other hosts may bring events"
                raise LoraError(
                    f"LoRA {name}: {path} is outside loras.roots ({where}): move it there, or add its root"
                )
        return original

    def _reading(self, path: Path) -> BufferedReader:
        return open_below(path, None if self._roots is None else [*self._roots, self._staging.resolve()])

    # Links

    def _is_staged(self, link: Path) -> bool:
        copy = self._copies / link.name
        return _target(link) == copy and lorafiles.lacks(copy) is None

    def _is_whole(self, entry: _Entry) -> bool:
        """Whether the link points to its original, or to what has the content that its name tells."""
        target = _target(entry.link)
        if target is None:
            return False
        return (
            lorafiles.lacks(target) is None if target == entry.original else self._is_true(entry.link, target)
        )

    def _point(self, link: Path, target: Path) -> None:
        fresh = self._work / link.name
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(target)
        fresh.replace(link)

    def _write_record(self, entry: _Entry) -> None:
        fresh = self._work / f"{entry.link.name}.json"
        with fresh.open("w", encoding="utf-8") as file:
            json.dump({"name": entry.name, "original": str(entry.original), "bytes": entry.bytes}, file)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._records / fresh.name)

    def _read_records(self) -> Iterator[_Entry]:
        for path in sorted(self._records.glob("*.json"), key=lambda path: path.stat().st_mtime_ns):
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                original, size = Path(str(record["original"])), int(record["bytes"])
                yield _Entry(str(record["name"]), self._links / path.stem, original, size)
            except (ValueError, KeyError, TypeError) as error:
                log.warning("record of a LoRA's original is unreadable", path=str(path), error=str(error))

    # Content

    def _content_hash(self, directory: Path) -> str:
        """Hash the names and bytes of what an engine loads. A file is read again only when it has changed."""
        total = hashlib.sha256()
        for path in _content(directory):
            status = path.stat()
            key = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            if key not in self._hashes:
                with self._reading(path) as file:
                    self._hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
            total.update(f"{path.name} {self._hashes[key]}\n".encode())
        return total.hexdigest()[: lorafiles.DIGITS]

    def _is_true(self, link: Path, directory: Path) -> bool:
        """Whether the directory has the content that the link's name tells."""
        return (
            lorafiles.lacks(directory) is None
            and self._content_hash(directory) == link.name[-lorafiles.DIGITS :]
        )

    # Copies

    def _copy(self, entry: _Entry) -> None:
        """Make a complete copy in `_copying`. All of its space is taken before anything is written there."""
        self._remove(self._copying)
        try:
            self._copying.mkdir()
            sources = _files(entry.original)
            for source in sources:
                _allocate(self._copying / source.name, source.stat().st_size)
            for source in sources:
                with self._reading(source) as original:
                    fill(self._copying / source.name, original, COPIED_AT_ONCE)
        except OSError as error:
            self._remove(self._copying)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoRoom(f"LoRA {entry.name}: {self._staging} is full ({error.strerror})") from None
            raise
        if not self._is_true(entry.link, self._copying):
            self._remove(self._copying)
            raise LoraError(f"LoRA {entry.name}: {entry.original} changed since it was bound: bind it again")

    def _drop_copy(self, entry: _Entry) -> None:
        copy = self._copies / entry.link.name
        if _target(entry.link) == copy:
            if not self._is_true(entry.link, entry.original):
                raise LoraError(f"LoRA {entry.name}: {entry.original} is gone or changed, its copy stays")
            self._point(entry.link, entry.original)
            sleep(READERS_SECONDS)
        self._remove(copy)

    def _remove(self, copy: Path) -> None:
        if copy.exists():
            shutil.rmtree(copy)
        self._staged.pop(copy.name, None)

    def _drop_unused(self) -> int:
        self._staged.clear()
        used = {_target(path) for path in self._links.iterdir() if path.is_symlink()}
        dropped = 0
        for copy in [*self._copies.iterdir(), self._copying]:
            if copy in used:
                self._staged[copy.name] = _size(copy)
            elif copy.exists():
                self._remove(copy)
                dropped += 1
        for leftover in self._work.iterdir():
            leftover.unlink()
        return dropped


def _slug(name: str) -> str:
    """Return a harmless file name for any LoRA name, different for different names."""
    if SAFE_NAME.fullmatch(name):
        return name
    readable = re.sub(r"[^A-Za-z0-9_-]+", "_", name)[:60]
    return f"{readable}~{hashlib.sha256(name.encode(errors='replace')).hexdigest()[:8]}"


def _real(name: str, path: Path) -> Path:
    try:
        return path.resolve()
    except (ValueError, RuntimeError) as error:
        raise LoraError(f"LoRA {name}: {str(path)!r} leads nowhere: {error}") from None


def _target(link: Path) -> Path | None:
    try:
        return link.readlink()
    except OSError:
        return None


def _content(directory: Path) -> list[Path]:
    lacking = lorafiles.lacks(directory)
    if lacking is not None:
        raise LoraError(f"{directory} is no LoRA: {lacking}")
    return [path for name in (lorafiles.CONFIG, *lorafiles.WEIGHTS) if (path := directory / name).is_file()]


def _files(directory: Path) -> list[Path]:
    """What a copy takes: no engine looks into subdirectories, where training leaves its checkpoints."""
    return [path for path in sorted(directory.iterdir()) if path.is_file()] if directory.is_dir() else []


def _allocate(path: Path, size: int) -> None:
    """Make a file of `size` bytes that can be written without running out of room."""
    with path.open("xb") as file:
        if size:
            os.posix_fallocate(file.fileno(), 0, size)


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in _files(directory))
