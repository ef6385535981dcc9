"""Stable links that engines load LoRAs from, and copies of the LoRAs in host memory behind them.

A link's name carries its content's hash, so that one path always means the same weights. It points to a
complete directory at every moment, with or without the daemon: a copy is complete before a link points to it,
and a link points to the original again before the copy goes. `.originals` has each link's original on record.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from io import BufferedReader
from itertools import chain
from pathlib import Path
from threading import Lock
from time import sleep

import structlog

from scalesim_adapters import lorafiles
from scalesim_daemon.dirlock import DirectoryInUse, lock_directory
from scalesim_daemon.lorafolders import allocate, bytes_of, files_of, give, make_folder, target
from scalesim_daemon.lorarecords import Entry, Records
from scalesim_daemon.rootedfiles import fill, open_below
from scalesim_daemon.settings import ConfigError, LoraSettings

SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")
COPIED_AT_ONCE = 1 << 20
# A reader that has just followed a link may not have opened the file behind it yet.
READERS_SECONDS = 0.05
# LoRAs that nobody uses and that are known all the same: their names may come again.
MOST_UNUSED = 10_000

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
        self._work = self._links / ".work"
        self._records = Records(self._links, self._work)
        # Libraries with other links may stage into the same directory: each has its own part of it.
        part = hashlib.sha256(os.fsencode(self._links)).hexdigest()[: lorafiles.DIGITS]
        self._staging = staging_dir.absolute()
        self._copies = self._staging / part
        self._copying = self._staging / f"{part}.part"
        self._budget = staging_bytes
        self._mutex = Lock()
        self._locked: int | None = None
        # In the order in which they were last linked.
        self._entries: dict[str, Entry] = {}
        self._newest: dict[str, Entry] = {}
        self._staged: dict[str, int] = {}
        self._hashes: dict[Path, dict[tuple[int, int, int, int], str]] = {}

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

    @property
    def crowded(self) -> bool:
        """Whether there may be any to forget."""
        return len(self._entries) > MOST_UNUSED

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
            entry = Entry(name, link, original, bytes_of(original))
            if self._entries.pop(link.name, None) != entry:
                self._records.write(entry)
            if not self._is_staged(link) and target(link) != original:
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
            size = bytes_of(entry.original)
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

    def forget(self, bound: Collection[str], links: Collection[str]) -> int:
        """Remove the links of LoRAs that aren't staged, whose names nobody has `bound`, or whose content is an older
        one, and that aren't among the `links` that engines have; those that were linked last stay. Return how many
        have gone."""
        with self._mutex:
            self._check_locked()
            unused = [entry for entry in self._entries.values() if not self._is_used(entry, bound, links)]
            gone = unused[: max(0, len(unused) - MOST_UNUSED)]
            for entry in gone:
                self._drop_link(entry)
            originals = {entry.original for entry in self._entries.values()}
            for folder in {entry.original for entry in gone} - originals:
                self._hashes.pop(folder, None)
            return len(gone)

    def recover(self) -> Recovery:
        """Take the directories and read what links there are; let those that dangle point to their original,
        and then drop copies that no link points to. Raises `DirectoryInUse` where another daemon works."""
        with self._mutex:
            for directory in (self._links, self._records.folder, self._work, self._copies):
                directory.mkdir(parents=True, exist_ok=True)
            self._check_owner()
            if self._locked is None:
                self._locked = lock_directory(self._links)
            whole, repaired, broken = 0, [], []
            for entry in self._records.read():
                try:
                    self._allowed(entry.name, entry.original)
                except (LoraError, OSError) as error:
                    log.warning("link to a LoRA no longer used", error=str(error))
                    # An engine may still have it by that link: it leads to the original, and its copy goes.
                    if target(entry.link) not in (None, entry.original):
                        self._point(entry.link, entry.original)
                    continue
                if not self._is_whole(entry):
                    if not self._is_true(entry.link, entry.original):
                        # It is nobody's, but there: an engine may have it, and else it is forgotten some day.
                        self._entries[entry.link.name] = entry
                        broken.append(entry.name)
                        continue
                    self._point(entry.link, entry.original)
                    repaired.append(entry.name)
                self._entries[entry.link.name] = self._newest[entry.name] = entry
                whole += 1
            dropped = self._drop_unused()
            return Recovery(whole, tuple(repaired), tuple(broken), dropped)

    def close(self) -> None:
        """Let another daemon have the directories, once what is under way in a thread is done. Links and copies stay as
        they are."""
        with self._mutex:
            if self._locked is not None:
                os.close(self._locked)
                self._locked = None

    @property
    def _free(self) -> int:
        return max(0, self._budget - sum(list(self._staged.values())))

    def _entry(self, name: str) -> Entry:
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
        for path in chain((original,), (_real(name, file) for file in files_of(original))):
            if not any(path.is_relative_to(root) for root in self._roots):
                where = ", ".join(map(str, self._roots)) or "none is set, and other hosts may bring events"
                raise LoraError(
                    f"LoRA {name}: {path} is outside loras.roots ({where}): move it there, or add its root"
                )
        return original

    def _reading(self, path: Path) -> BufferedReader:
        return open_below(path, None if self._roots is None else [*self._roots, self._staging.resolve()])

    # Links

    def _is_used(self, entry: Entry, bound: Collection[str], links: Collection[str]) -> bool:
        wanted = entry.name in bound and self._newest.get(entry.name) is entry
        return wanted or str(entry.link) in links or entry.link.name in self._staged

    def _drop_link(self, entry: Entry) -> None:
        """A record without its link is one that is made again, a link without its record would stay for ever."""
        entry.link.unlink(missing_ok=True)
        self._records.drop(entry)
        del self._entries[entry.link.name]
        if self._newest.get(entry.name) is entry:
            del self._newest[entry.name]

    def _is_staged(self, link: Path) -> bool:
        copy = self._copies / link.name
        return target(link) == copy and lorafiles.lacks(copy) is None

    def _is_whole(self, entry: Entry) -> bool:
        """Whether the link points to its original, or to what has the content that its name tells."""
        folder = target(entry.link)
        if folder is None:
            return False
        return (
            lorafiles.lacks(folder) is None if folder == entry.original else self._is_true(entry.link, folder)
        )

    def _point(self, link: Path, folder: Path) -> None:
        fresh = self._work / link.name
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(folder)
        fresh.replace(link)

    # Content

    def _content_hash(self, directory: Path) -> str:
        """Hash the names and bytes of what an engine loads. A file is read again only when it has changed."""
        total = hashlib.sha256()
        before, hashes = self._hashes.get(directory, {}), {}
        for path in _content(directory):
            status = path.stat()
            key = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            hashes[key] = before.get(key) or self._hash(path)
            total.update(f"{path.name} {hashes[key]}\n".encode())
        self._hashes[directory] = hashes
        return total.hexdigest()[: lorafiles.DIGITS]

    def _hash(self, path: Path) -> str:
        with self._reading(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def _is_true(self, link: Path, directory: Path) -> bool:
        """Whether the directory has the content that the link's name tells."""
        return (
            lorafiles.lacks(directory) is None
            and self._content_hash(directory) == link.name[-lorafiles.DIGITS :]
        )

    # Copies

    def _copy(self, entry: Entry) -> None:
        """Make a complete copy in `_copying`. All of its space is taken before anything is written there."""
        self._remove(self._copying)
        try:
            make_folder(self._copying, entry.original)
            sources = files_of(entry.original)
            for source in sources:
                allocate(self._copying / source.name, source)
            for source in sources:
                with self._reading(source) as original:
                    fill(self._copying / source.name, original, COPIED_AT_ONCE)
                give(self._copying / source.name, source)
            # Last: whose it is then may exchange what is in it.
            give(self._copying, entry.original)
        except OSError as error:
            self._remove(self._copying)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise NoRoom(f"LoRA {entry.name}: {self._staging} is full ({error.strerror})") from None
            raise
        if not self._is_true(entry.link, self._copying):
            self._remove(self._copying)
            raise LoraError(f"LoRA {entry.name}: {entry.original} changed since it was bound: bind it again")

    def _drop_copy(self, entry: Entry) -> None:
        copy = self._copies / entry.link.name
        if target(entry.link) == copy:
            if not self._is_true(entry.link, entry.original):
                raise LoraError(f"LoRA {entry.name}: {entry.original} is gone or changed, its copy stays")
            self._point(entry.link, entry.original)
            sleep(READERS_SECONDS)
        self._remove(copy)

    def _remove(self, copy: Path) -> None:
        if copy.exists():
            shutil.rmtree(copy)
        self._staged.pop(copy.name, None)
        self._hashes.pop(copy, None)

    def _drop_unused(self) -> int:
        self._staged.clear()
        used = {target(path) for path in self._links.iterdir() if path.is_symlink()}
        dropped = 0
        for copy in [*self._copies.iterdir(), self._copying]:
            if copy in used:
                self._staged[copy.name] = bytes_of(copy)
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


def _content(directory: Path) -> list[Path]:
    lacking = lorafiles.lacks(directory)
    if lacking is not None:
        raise LoraError(f"{directory} is no LoRA: {lacking}")
    return [path for name in (lorafiles.CONFIG, *lorafiles.WEIGHTS) if (path := directory / name).is_file()]
