"""The packages from npm that the dashboard is served with, and what tests hold it against.

`python -m tests.dashboard.vendor` fetches anew what `vendored.json` pins, and fails where a package isn't what it was;
with a folder as argument it fetches axe-core, for tests alone, into that folder.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory

VENDORED = Path(str(files("scalesim_daemon.dashboard").joinpath("assets/vendor")))
PINS = VENDORED / "vendored.json"
AXE_FILE = "axe.min.js"


@dataclass(frozen=True, slots=True)
class Package:
    """One package from npm: `files` names those that are taken, and where each goes. `integrity` is the SHA-512 of the
    archive as npm writes it, `note` says what the package is for."""

    name: str
    version: str
    license: str
    integrity: str
    files: Mapping[str, str]
    note: str


AXE = Package(
    name="axe-core",
    version="4.14.1",
    license="MPL-2.0",
    integrity="sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
    files={"axe.min.js": AXE_FILE},
    note="finds what is in the way of people who read by ear or keyboard",
)


def pinned() -> list[Package]:
    """Return the packages that the dashboard is served with."""
    return [Package(**one) for one in json.loads(PINS.read_text())]


def fetch(package: Package, folder: Path) -> None:
    """Put a package's files into a folder. Raises `RuntimeError` where the archive is another than it was."""
    with TemporaryDirectory() as scratch:
        command = [
            "npm",
            "pack",
            f"{package.name}@{package.version}",
            "--silent",
            "--pack-destination",
            scratch,
        ]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (archive,) = Path(scratch).iterdir()
        digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if f"sha512-{digest}" != package.integrity:
            raise RuntimeError(
                f"{package.name} {package.version} is sha512-{digest}, not {package.integrity!r}: is it what it was?"
            )
        with tarfile.open(archive) as content:
            for name, path in package.files.items():
                member = content.extractfile(f"package/{name}")
                assert member is not None, f"{package.name} has no {name}"
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(member.read())


def main(arguments: list[str]) -> None:
    """Fetch axe-core into the folder that is given, else all that the dashboard is served with."""
    if arguments:
        fetch(AXE, Path(arguments[0]))
        return
    for package in pinned():
        fetch(package, VENDORED)
        print(f"{package.name} {package.version}: {', '.join(package.files.values())}")


if __name__ == "__main__":
    main(sys.argv[1:])
