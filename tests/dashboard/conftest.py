"""A browser for all tests, and daemons beside an emulated engine for each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import Browser

from bench.demo import lab
from bench.rig.daemon import DaemonProcess
from tests.dashboard.browser import CHROMIUM, chromium

ADMIN = "admin-token-0123456789"
VIEWER = "viewer-token-0123456789"


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, once for all tests."""
    if CHROMIUM is None:
        pytest.skip("Chromium isn't installed (Debian: `apt-get install chromium`)")
    with chromium() as one:
        yield one


@dataclass(frozen=True, slots=True)
class Place:
    """A daemon that may be killed and started again, and the engine beside it."""

    daemon: DaemonProcess
    engine: str

    @property
    def url(self) -> str:
        """The dashboard's address."""
        return f"{self.daemon.api}/"


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """A daemon beside the demo's emulated engine; with a viewer's and an admin's token where `tokens` is given."""
    config = tmp_path / "scalesim.yaml"
    tokens = (
        {"admin_token": ADMIN, "viewer_token": VIEWER} if getattr(request, "param", None) == "tokens" else {}
    )
    config.write_text(yaml.safe_dump({"api": tokens}))
    with ExitStack() as stack:
        engine = stack.enter_context(lab.engine("emulator", "ours", tmp_path / "engine"))
        daemon = stack.enter_context(DaemonProcess(tmp_path, engine, config=config))
        yield Place(daemon, engine)
