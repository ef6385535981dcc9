"""The two commands' entry points: they name the extra where the daemon's dependencies are missing."""

from __future__ import annotations

import sys
from importlib import import_module

OWN_PACKAGES = ("scalesim_client", "scalesim_estimators", "scalesim_adapters", "scalesim_daemon")


def scalesimd() -> None:
    """Run the daemon's command line."""
    _run("scalesim_daemon.cli")


def scalesimctl() -> None:
    """Run the command line that asks and steers a running daemon."""
    _run("scalesim_daemon.ctl.app")


def _run(module: str) -> None:
    try:
        app = import_module(module).app
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if not missing or missing in OWN_PACKAGES:
            raise
        sys.stderr.write(f"{missing} can't be imported: {error}\n")
        sys.stderr.write("The daemon needs more than the client: pip install 'scalesim-sidecar[daemon]'\n")
        raise SystemExit(2) from None
    app()
