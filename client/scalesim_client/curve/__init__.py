"""Keys for a feed that other hosts reach: ZeroMQ's CURVE encrypts it, and each side knows the other by its key.

`python -m scalesim_client.curve FOLDER NAME ...` makes a pair of keys for each name: `NAME.key_secret` for its owner
alone, and `NAME.key` for those whom it speaks to.
"""

from __future__ import annotations

import errno
import os
import struct
from dataclasses import dataclass, field
from pathlib import Path

from zmq.auth import create_certificates, load_certificate
from zmq.utils import z85

KEY_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class Curve:
    """The daemon's public key and a publisher's own pair, each as 40 characters of Z85. Raises `ValueError` for what
    is no key."""

    server: bytes
    public: bytes
    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not is_key(getattr(self, name)):
                raise ValueError(f"{name} is no key: it has {KEY_CHARACTERS} characters of Z85")

    @classmethod
    def load(cls, own: Path | str, server: Path | str) -> Curve:
        """Read a publisher's `NAME.key_secret`, and the daemon's `NAME.key`. Raises `OSError`, and `ValueError` where
        a key is missing."""
        public, secret = read_keys(own)
        if secret is None:
            raise ValueError(f"{own} holds no secret key: name the file that ends in .key_secret")
        return cls(read_keys(server)[0], public, secret)


def is_key(key: bytes) -> bool:
    """Whether this has the form of a key."""
    try:
        return len(key) == KEY_CHARACTERS and len(z85.decode(key)) == 32
    except (KeyError, ValueError, struct.error):
        return False


def read_keys(file: Path | str) -> tuple[bytes, bytes | None]:
    """Return a file's public key and its secret one, if it holds one. Raises `OSError`, and `ValueError` for what is no
    file of keys."""
    try:
        public, secret = load_certificate(file)
    except LookupError:
        # pyzmq splits a line that names a key at its "=", whether there is one or not.
        raise ValueError(f"{file} is no file of keys: a line lacks its =") from None
    return public, secret


def make_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a pair of keys; return the public file and the secret one, which its owner alone can read. Raises
    `FileExistsError` where the name has keys: who holds the old ones would be locked out."""
    folder.mkdir(parents=True, exist_ok=True)
    public, secret = folder / f"{name}.key", folder / f"{name}.key_secret"
    if public.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(public))
    # It has its mode before the secret is in it.
    os.close(os.open(secret, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    create_certificates(folder, name)
    return public, secret
