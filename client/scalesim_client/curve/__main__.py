"""The command that makes keys."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scalesim_client import curve


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the keys that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m scalesim_client.curve", description=curve.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="+", metavar="NAME")
    given = parser.parse_args(arguments)
    for name in given.names:
        try:
            public, secret = curve.make_keys(given.folder, name)
        except OSError as error:
            sys.exit(f"{given.folder}/{name}: {error.strerror}")
        sys.stdout.write(f"{public}\n{secret}\n")


if __name__ == "__main__":
    main()
