"""The doorman of the feed and of the broadcast where keys are asked for: ZeroMQ's CURVE, over pyzmq's authenticator.

Who has a key may speak for any source, unless its file says for which: lines `speaks-for = "village*"` in it, each a
pattern (`*`, `?`, `[...]`) that the source's name and its simulation's have to fit, or another of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, NamedTuple

import structlog
import zmq
import zmq.asyncio
from zmq.auth.asyncio import AsyncioAuthenticator

from scalesim_client.curve import is_key, read_keys
from scalesim_daemon.settings import ConfigError, CurveSettings

MOST_NAMED = 100
SPEAKS_FOR = b"speaks-for"

Section = Literal["feed", "broadcast"]
_TO = {"feed": "bring events", "broadcast": "hear dues"}

log = structlog.get_logger(__name__)


class _File(NamedTuple):
    """A file in the folder as it stands: one that is written anew, in place or not, is another."""

    name: str
    mtime_ns: int
    size: int
    inode: int


class _Key(NamedTuple):
    """A public key, and the patterns of the names that it may speak for; none: any."""

    public: bytes
    speaks_for: tuple[str, ...] = ()


class Keys:
    """The public keys in a folder, looked at for each connection: a file that has come, changed or gone counts at once.
    What is no key is named once and passed over. Raises `ConfigError` where the folder can't be read."""

    def __init__(self, folder: Path, section: Section = "feed") -> None:
        self._folder = folder
        self._section = section
        self._keys: dict[_File, _Key] = {}
        self._speaks_for: dict[bytes, tuple[str, ...]] = {}
        self._passed_over: frozenset[_File] = frozenset()
        self._trouble: str | None = None
        self._strangers: set[bytes] = set()
        try:
            self._refresh()
        except OSError as error:
            raise ConfigError(f"{section}.curve.clients_dir: {error}") from None

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether the owner of a key may come in; pyzmq's authenticator asks. Never raises: that would end the
        authenticator, and nobody else would come in."""
        try:
            self._refresh()
            self._trouble = None
        except Exception as error:  # noqa: BLE001  # whatever it is, those known before hold
            if str(error) != self._trouble:
                log.warning("keys can't be read: those known before hold", error=str(error))
            self._trouble = str(error)
        if any(key == known.public for known in self._keys.values()):
            return True
        if key not in self._strangers and len(self._strangers) < MOST_NAMED:
            self._strangers.add(key)
            remedy = f"put its NAME.key into {self._folder}, if it may {_TO[self._section]}"
            log.warning("connection refused: its key is not known", public_key=key.decode(), remedy=remedy)
        return False

    def refusal(self, key: bytes, source: str, events: Sequence[object]) -> str | None:
        """Return why the owner of a key, who has come in, may not say these events as this source; None where it may.
        A source says of which simulation it is when it opens, and may be another one's from then on."""
        patterns = self._speaks_for.get(key, ())
        if not patterns:
            return None
        for name in (source, *_simulations(events)):
            if not any(fnmatchcase(name, pattern) for pattern in patterns):
                remedy = "at the daemon, a line speaks-for in its file allows it, from the next connection on"
                return f"this key may not speak for {name[:64]!r}: {remedy}"
        return None

    def _refresh(self) -> None:
        files = _files(self._folder)
        keys: dict[_File, _Key] = {}
        faults: dict[_File, str] = {}
        for file in files:
            try:
                # What couldn't be read is tried again: it may be readable by now.
                keys[file] = self._keys.get(file) or _read(self._folder / file.name)
            except (OSError, ValueError) as error:
                faults[file] = str(error)
        for file in keys.keys() - self._keys.keys():
            patterns = list(keys[file].speaks_for) or "any source"
            named = {"speaks_for": patterns} if self._section == "feed" else {}
            log.info("key known", door=self._section, file=file.name, **named)
        for file in faults.keys() - self._passed_over:
            remedy = "put a NAME.key there that `python -m scalesim_client.curve` has made"
            log.warning("no key: passed over", error=faults[file], remedy=remedy)
        self._keys, self._passed_over = keys, frozenset(faults)
        said: dict[bytes, tuple[str, ...]] = {}
        for key in keys.values():
            # Of a key in two files what either says holds, and one that says nothing adds nothing.
            said[key.public] = said.get(key.public, ()) + key.speaks_for
        # Of a key that is gone connections may still stand: what it might say holds for them.
        self._speaks_for |= said


def _simulations(events: Sequence[object]) -> Iterator[str]:
    for event in events:
        if isinstance(event, dict) and event.get("type") == "stream.opened":
            yield str(event.get("simulation"))


def _files(folder: Path) -> frozenset[_File]:
    """Return the `*.key` of a folder, without hidden ones. Raises `OSError`."""
    with os.scandir(folder) as entries:
        return frozenset(
            _as_it_stands(entry)
            for entry in entries
            if entry.name.endswith(".key") and not entry.name.startswith(".")
        )


def _as_it_stands(entry: os.DirEntry[str]) -> _File:
    try:
        stat = entry.stat()
    except OSError:  # It has just gone, or links to nothing: reading it says so.
        return _File(entry.name, 0, 0, 0)
    return _File(entry.name, stat.st_mtime_ns, stat.st_size, stat.st_ino)


def _read(file: Path) -> _Key:
    """Return the public key in a file, and for whom it speaks. Raises `OSError` and `ValueError`."""
    if file.exists() and not file.is_file():
        # A pipe would be waited for.
        raise ValueError(f"{file} is no file")
    key, _ = read_keys(file)
    if not is_key(key):
        raise ValueError(f"{file} holds no public key")
    return _Key(key, tuple(_patterns(file)))


def _patterns(file: Path) -> Iterator[str]:
    for line in file.read_bytes().splitlines():
        name, _, value = line.partition(b"=")
        pattern = value.strip(b" \t'\"").decode()
        # A line that says nothing keeps the key out: with none at all it might speak for any source.
        if name.strip().startswith(SPEAKS_FOR):
            if name.strip() != SPEAKS_FOR or not pattern:
                raise ValueError(f'{file}: write speaks-for = "PATTERN"')
            yield pattern


def guard(
    context: zmq.Context[zmq.Socket[bytes]] | zmq.asyncio.Context,
    socket: zmq.Socket[bytes] | zmq.asyncio.Socket,
    settings: CurveSettings,
    section: Section,
) -> tuple[AsyncioAuthenticator, Keys]:
    """Let a socket, before it is bound, take only those whose keys are known. To be called on the loop that then asks
    for them. Raises `ConfigError`."""
    if not zmq.has("curve"):
        raise ConfigError(f"{section}.curve: this libzmq was built without CURVE: install pyzmq's own wheel")
    public, secret = _own(settings.server_key_file, section)
    keys = Keys(settings.clients_dir, section)
    doorman = AsyncioAuthenticator(context)
    doorman.configure_curve_callback(credentials_provider=keys)
    doorman.start()
    socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    return doorman, keys


def _own(file: Path, section: Section) -> tuple[bytes, bytes]:
    try:
        public, secret = read_keys(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{section}.curve.server_key_file: {error}") from None
    if secret is None or not (is_key(public) and is_key(secret)):
        raise ConfigError(
            f"{section}.curve.server_key_file: {file} holds no secret key: "
            f"`python -m scalesim_client.curve FOLDER {section}` makes {section}.key_secret"
        )
    return public, secret
