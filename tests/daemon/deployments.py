"""What deployments are held against: how long the daemon takes to stop, what its command knows, and each other."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import typer.main
import yaml

from scalesim_daemon import embedded
from scalesim_daemon.app import LAST_ANSWERS_SECONDS
from scalesim_daemon.cli import app
from scalesim_daemon.tracing import LAST_TRACES_SECONDS

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / "configs" / "kubernetes" / "sidecar.yaml"
# The doors one after the other, the last traces, and the Valkey's save.
STOPS_WITHIN = 3 * LAST_ANSWERS_SECONDS + LAST_TRACES_SECONDS + embedded.STOP_SECONDS


def check_command(arguments: list[str]) -> None:
    """Raise where the daemon doesn't know a command or a flag."""
    command = typer.main.get_command(app).commands[arguments[0]]
    with command.make_context(arguments[0], arguments[1:], resilient_parsing=True):
        assert set(arguments[1::2]) <= {option for one in command.params for option in one.opts}


@cache
def manifest() -> dict[tuple[str, str], Any]:
    """The documents of the Kubernetes example by kind and name."""
    documents = yaml.safe_load_all(MANIFEST.read_text())
    return {(one["kind"], one["metadata"]["name"]): one for one in documents}


def pod() -> dict[str, Any]:
    return manifest()["Deployment", "vllm"]["spec"]["template"]["spec"]


def containers() -> tuple[dict[str, Any], dict[str, Any]]:
    """The daemon's container and the engine's."""
    (daemon,), (engine,) = pod()["initContainers"], pod()["containers"]
    return daemon, engine
