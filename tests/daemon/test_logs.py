"""What becomes of the daemon where its log can't be written."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from scalesim_daemon.logs import configure_logging
from scalesim_daemon.settings import LogSettings


@pytest.fixture
def restored() -> Iterator[None]:
    """What this process logs by is as before."""
    root = logging.getLogger()
    before = list(root.handlers), root.level
    yield
    root.handlers, root.level = before
    structlog.reset_defaults()


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_full_disk_loses_lines_and_nothing_else(
    form: str, restored: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure_logging(LogSettings.model_validate({"format": form}))
    log = structlog.get_logger("test")
    full = Path("/dev/full").open("w", buffering=1)  # noqa: SIM115  # to close it would have to write what waits
    monkeypatch.setattr(sys, "stderr", full)
    for _ in range(1000):
        log.warning("nobody reads this", agent="village/rosa")
    logging.getLogger("library").warning("nor this")
    monkeypatch.setattr(sys, "stderr", (tmp_path / "log").open("w", buffering=1))
    log.warning("room again")
    logging.getLogger("library").warning("room for all")
    sys.stderr.close()
    assert [line.count("room") for line in (tmp_path / "log").read_text().splitlines()] == [1, 1]
    with pytest.raises(OSError, match="No space left"):
        full.close()
