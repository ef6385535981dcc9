"""The feed's doorman where keys are asked for: ZeroMQ's CURVE, over pyzmq's authenticator.

Who has a key may speak as any source: keys keep strangers out, and don't tell one simulation from another.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import structlog
import zmq
import zmq.asyncio
from zmq.auth.asyncio import AsyncioAuthenticator

from scalesim_client.curve import is_key, read_keys
from scalesim_daemon.settings import ConfigError, CurveSettings

MOST_NAMED = 100

log = structlog.get_logger(__name__)


class _File(NamedTuple):
    """A file in the folder as it stands: one that is written anew, in place or not, is another."""

    name: str
    mtime_ns: int
    size: int
    inode: int


class Keys:
    """The public keys in a folder, looked at for each connection: a file that has come, changed or gone counts at once.
    What is no key is named once and passed over. Raises `ConfigError` where the folder can't be read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._keys: dict[_File, bytes] = {}
        self._passed_over: frozenset[_File] = frozenset()
        self._trouble: str | None = None
        self._strangers: set[bytes] = set()
        try:
            self._refresh()
        except OSError as error:
            raise ConfigError(f"feed.curve.clients_dir: {error}") from None

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether the owner of a key may come in; pyzmq's authenticator asks. Never raises: that would end the
        authenticator, and nobody else would come in."""
        try:
            self._refresh()
            self._trouble = None
        except Exception as error:  # noqa: BLE001  # whatever it is, those known before hold
            if str(error) != self._trouble:
                log.warning("publishers' keys can't be read: those known before hold", error=str(error))
            self._trouble = str(error)
        if key in self._keys.values():
            return True
        if key not in self._strangers and len(self._strangers) < MOST_NAMED:
            self._strangers.add(key)
            remedy = f"put its NAME.key into {self._folder}, if it may bring events"
            log.warning("publisher refused: its key is not known", public_key=key.decode(), remedy=remedy)
        return False

    def _refresh(self) -> None:
        files = _files(self._folder)
        keys: dict[_File, bytes] = {}
        faults: dict[_File, str] = {}
        for file in files:
            try:
                # What couldn't be read is tried again: it may be readable by now.
                keys[file] = self._keys.get(file) or _public(self._folder / file.name)
            except (OSError, ValueError) as error:
                faults[file] = str(error)
        for file in faults.keys() - self._passed_over:
            remedy = "put a NAME.key there that `python -m scalesim_client.curve` has made"
            log.warning("no publisher's key: passed over", error=faults[file], remedy=remedy)
        self._keys, self._passed_over = keys, frozenset(faults)


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


def _public(file: Path) -> bytes:
    """Return the public key in a file. Raises `OSError` and `ValueError`."""
    if file.exists() and not file.is_file():
        # A pipe would be waited for.
        raise ValueError(f"{file} is no file")
    key, _ = read_keys(file)
    if not is_key(key):
        raise ValueError(f"{file} holds no public key")
    return key


def guard(
    context: zmq.asyncio.Context, socket: zmq.asyncio.Socket, settings: CurveSettings
) -> AsyncioAuthenticator:
    """Let a socket, before it is bound, take only those whose keys are known. Raises `ConfigError`."""
    if not zmq.has("curve"):
        raise ConfigError("feed.curve: this libzmq was built without CURVE: install pyzmq's own wheel")
    public, secret = _own(settings.server_key_file)
    keys = Keys(settings.clients_dir)
    doorman = AsyncioAuthenticator(context)
    doorman.configure_curve_callback(credentials_provider=keys)
    doorman.start()
    socket.setsockopt(zmq.CURVE_PUBLICKEY, public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
    socket.setsockopt(zmq.CURVE_SERVER, 1)
    return doorman


def _own(file: Path) -> tuple[bytes, bytes]:
    try:
        public, secret = read_keys(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"feed.curve.server_key_file: {error}") from None
    if secret is None or not (is_key(public) and is_key(secret)):
        raise ConfigError(
            f"feed.curve.server_key_file: {file} holds no secret key: "
            "`python -m scalesim_client.curve FOLDER feed` makes feed.key_secret"
        )
    return public, secret
