"""Keys for tests: a daemon's, and those of whom it lets in and of others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scalesim_client import Curve
from scalesim_client.curve import make_keys


class Keyring:
    """The keys of a daemon, and of publishers or plug-ins, of whom the daemon knows some."""

    def __init__(self, folder: Path) -> None:
        self.clients = folder / "clients"
        self.clients.mkdir()
        self._folder = folder / "keys"
        self.server, self.own = make_keys(self._folder, "feed")

    def make(self, name: str, *, known: bool) -> Path:
        """Make somebody's keys; return the file with the secret one."""
        _, secret = make_keys(self._folder, name)
        if known:
            self.admit(name)
        return secret

    def publisher(self, name: str, *, known: bool) -> Curve:
        """Make a publisher's keys."""
        return Curve.load(self.make(name, known=known), self.server)

    def admit(self, name: str, *speaks_for: str) -> None:
        """Let the daemon know a key, for any source or for those that fit a pattern."""
        lines = "".join(f'    speaks-for = "{pattern}"\n' for pattern in speaks_for)
        public = (self._folder / f"{name}.key").read_text()
        (self.clients / f"{name}.key").write_text(public.replace("metadata\n", f"metadata\n{lines}"))

    def door(self) -> dict[str, Any]:
        """Return the settings of a feed or a broadcast that takes keys."""
        curve = {"server_key_file": str(self.own), "clients_dir": str(self.clients)}
        return {"bind": "tcp://127.0.0.1:*", "curve": curve}
