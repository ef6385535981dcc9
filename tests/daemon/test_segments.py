"""Host tiers' segments: there before an engine needs them, shown, kept, and where they can't be had no start."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from scalesim_adapters.hostbuf.segment import Segment
from scalesim_daemon.app import running
from scalesim_daemon.segments import provide_segments
from scalesim_daemon.setting_sources import load_settings
from scalesim_daemon.settings import ConfigError, EngineSettings
from tests.conftest import SMALL
from tests.daemon.live import daemon, emulator, overrides

SIZE = 1 << 20


def engine(segment: Path, size: int = SIZE, url: str = "http://127.0.0.1:9") -> dict[str, Any]:
    return {"name": "one", "url": url, "host_tier": {"segment": str(segment), "bytes": size}}


def test_segments_are_there_while_the_daemon_runs_and_afterwards(tmp_path: Path) -> None:
    segment = tmp_path / "shm" / "tier"

    async def shown(url: str) -> Any:
        plain = {"name": "plain", "url": url}
        async with daemon(tmp_path, engines=[engine(segment, url=url), plain]) as (_, api):
            found = (await api.get("/v1/engines")).json()["engines"]
            return {state["name"]: state["host_tier"] for state in found}

    with emulator(tmp_path) as server:
        whole = {"one": {"segment": str(segment), "bytes": SIZE}, "plain": None}
        assert asyncio.run(shown(server.url)) == whole
        held = Segment(segment, SIZE)
        held.buffer[:4] = b"kept"
        assert asyncio.run(shown(server.url)) == whole, "an engine that holds it doesn't mind"
        assert held.buffer[:4] == b"kept"
        held.close()
    assert segment.read_bytes()[:4] == b"kept"


def test_a_segment_that_an_engine_holds_keeps_its_size(tmp_path: Path) -> None:
    held = Segment(tmp_path / "tier", SIZE)
    with capture_logs() as logs:
        provide_segments([EngineSettings(**engine(tmp_path / "tier", 2 * SIZE))])
    assert ["in use with another size" in line["event"] for line in logs] == [True]
    held.buffer[:] = bytes(SIZE)
    held.close()
    provide_segments([EngineSettings(**engine(tmp_path / "tier", 2 * SIZE))])
    assert (tmp_path / "tier").stat().st_size == 2 * SIZE


def test_without_room_the_daemon_does_not_start_and_says_what_to_do(tmp_path: Path, small_shm: Path) -> None:
    settings = load_settings(
        None, {**overrides(tmp_path), "engines": [engine(small_shm / "tier", 2 * SMALL)]}
    )

    async def start() -> None:
        async with running(settings):
            raise AssertionError("it started")

    with pytest.raises(
        ConfigError, match=rf"engines: one: host_tier: .* needs {2 * SMALL:,} .* enlarge that"
    ):
        asyncio.run(start())
    assert not (tmp_path / "valkey").exists(), "nothing else was started"


def test_what_is_no_segment_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "somebody's").write_bytes(b"data")
    (tmp_path / "link").symlink_to(tmp_path / "somebody's")
    for path in (tmp_path / "link", tmp_path):
        with pytest.raises(ConfigError, match="can't be opened"):
            provide_segments([EngineSettings(**engine(path))])
    assert (tmp_path / "somebody's").read_bytes() == b"data"
