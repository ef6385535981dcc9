"""The feed's doorman where keys are asked for: ZeroMQ's CURVE, over pyzmq's authenticator.

Who has a key may speak as any source: keys keep strangers out, and don't tell one simulation from another.
"""

from __future__ import annotations

from pathlib import Path

import structlog
import zmq
import zmq.asyncio
from zmq.auth import load_certificate, load_certificates
from zmq.auth.asyncio import AsyncioAuthenticator

from scalesim_client.curve import is_key
from scalesim_daemon.settings import ConfigError, CurveSettings

MOST_NAMED = 100

log = structlog.get_logger(__name__)


class Keys:
    """The public keys in a folder, read again when a file has come or gone: that counts from the next connection on.
    Raises `ConfigError` where the folder can't be read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: frozenset[bytes] = frozenset()
        self._read_at: int | None = None
        self._strangers: set[bytes] = set()
        try:
            self._refresh()
        except (OSError, ValueError) as error:
            raise ConfigError(f"feed.curve.clients_dir: {error}") from None

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether the owner of a key may come in; pyzmq's authenticator asks."""
        try:
            self._refresh()
        except (OSError, ValueError) as error:
            log.warning("publishers' keys can't be read: those known before hold", error=str(error))
        if key in self._known:
            return True
        if key not in self._strangers and len(self._strangers) < MOST_NAMED:
            self._strangers.add(key)
            remedy = f"put its NAME.key into {self._folder}, if it may bring events"
            log.warning("publisher refused: its key is not known", public_key=key.decode(), remedy=remedy)
        return False

    def _refresh(self) -> None:
        changed_at = self._folder.stat().st_mtime_ns
        if changed_at != self._read_at:
            self._known = frozenset(load_certificates(self._folder))
            self._read_at = changed_at


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
        public, secret = load_certificate(file)
    except (OSError, ValueError) as error:
        raise ConfigError(f"feed.curve.server_key_file: {error}") from None
    if secret is None or not (is_key(public) and is_key(secret)):
        raise ConfigError(
            f"feed.curve.server_key_file: {file} holds no secret key: "
            "`python -m scalesim_client.curve FOLDER feed` makes feed.key_secret"
        )
    return public, secret
