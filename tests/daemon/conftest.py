"""What several files of the daemon's tests begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scalesim_daemon.loop import Sidecar
from scalesim_daemon.loras import LoraLibrary
from tests.daemon.lora_files import BYTES
from tests.daemon.mirror_scene import OnServer, runner
from tests.daemon.still import still_sidecar
from tests.daemon.stores import SERVERS


@pytest.fixture
def sidecar(tmp_path: Path) -> Sidecar:
    """A sidecar with nothing in it."""
    return still_sidecar(tmp_path)


@pytest.fixture
def library(tmp_path: Path) -> Iterator[LoraLibrary]:
    """A library with room for two LoRAs."""
    library = LoraLibrary(tmp_path / "links", tmp_path / "staging", 2 * BYTES)
    library.recover()
    yield library
    library.close()


@pytest.fixture(params=list(SERVERS))
def on_server(request: pytest.FixtureRequest) -> OnServer:
    """Run a body on a server of each kind."""
    return runner(request.param)
