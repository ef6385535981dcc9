"""Segments: allocated whole, locked, private, and still there when their process is gone."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from scalesim_adapters.hostbuf import segment as segments
from scalesim_adapters.hostbuf.segment import MAGIC, InUse, NoRoom, Segment, SegmentError, held, provide
from tests.conftest import SMALL

SIZE = 1 << 20
HOLD = """
import sys
from pathlib import Path
from scalesim_adapters.hostbuf.segment import Segment
segment = Segment(Path(sys.argv[1]), int(sys.argv[2]))
segment.buffer[:13] = b"SCALESIMalive"
print("holds", flush=True)
sys.stdin.read()
"""


def test_a_segment_is_allocated_private_and_keeps_its_content(tmp_path: Path) -> None:
    path = tmp_path / "below" / "tier"
    first = Segment(path, SIZE)
    status = path.stat()
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert status.st_size == SIZE
    assert status.st_blocks * 512 >= SIZE
    first.buffer[:12] = MAGIC + b"kept"
    first.close()
    second = Segment(path, SIZE)
    assert second.buffer[:12] == MAGIC + b"kept"
    second.close()
    larger = Segment(path, 2 * SIZE)
    assert larger.buffer[:12] == bytes(12)
    larger.close()


def test_what_was_left_is_found_by_whoever_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "tier"
    Segment(path, SIZE).close()
    assert path.stat().st_blocks * 512 >= SIZE
    assert not held(path)
    opened = Segment(path, SIZE)
    opened.buffer[:4] = b"kept"
    opened.close()
    Segment(path, SIZE).close()
    assert path.read_bytes()[:4] == b"kept"


@contextmanager
def holder(path: Path, size: int) -> Iterator[subprocess.Popen[bytes]]:
    """Let another process hold a segment, as an engine does."""
    command = [sys.executable, "-c", HOLD, str(path), str(size)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"holds\n"
        yield other
        other.kill()


def test_only_one_process_holds_a_segment_and_its_death_frees_it(tmp_path: Path) -> None:
    path = tmp_path / "tier"
    with holder(path, SIZE):
        assert held(path)
        with pytest.raises(InUse, match="used by another process"):
            Segment(path, SIZE)
        with pytest.raises(InUse):
            Segment(path, 2 * SIZE).close()
    assert not held(path)
    after = Segment(path, SIZE)
    assert after.buffer[:13] == MAGIC + b"alive"
    after.close()


def test_what_is_provided_is_whole_and_what_an_engine_holds_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "tier"
    provide(path, SIZE)
    made = path.stat()
    assert (stat.S_IMODE(made.st_mode), made.st_size) == (0o600, SIZE)
    assert made.st_blocks * 512 >= SIZE
    assert not held(path)
    with holder(path, SIZE) as engine:
        provide(path, SIZE)
        with pytest.raises(InUse):
            provide(path, 2 * SIZE)
        assert held(path)
        engine.kill()
    provide(path, SIZE)
    assert path.read_bytes()[:13] == MAGIC + b"alive"
    path.chmod(0o644)
    provide(path, SIZE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes()[:13] == MAGIC + b"alive"
    provide(path, 2 * SIZE)
    assert path.read_bytes() == bytes(2 * SIZE)


@pytest.mark.parametrize("size", [1, SIZE])
def test_what_is_no_segment_is_left_as_it_is(tmp_path: Path, size: int) -> None:
    path = tmp_path / "letters"
    path.write_bytes(b"precious" * 2)
    with pytest.raises(SegmentError, match="is no segment: name another"):
        provide(path, size)
    assert path.read_bytes() == b"precious" * 2
    with pytest.raises(SegmentError, match="is no file"):
        provide(Path("/dev/null"), size)


def test_a_file_without_its_blocks_is_filled_before_an_engine_meets_it(tmp_path: Path) -> None:
    path = tmp_path / "tier"
    path.touch(0o600)
    os.truncate(path, SIZE)
    assert path.stat().st_blocks == 0
    provide(path, SIZE)
    assert path.stat().st_blocks * 512 >= SIZE


def test_a_small_shared_memory_takes_what_fits_and_refuses_the_rest(small_shm: Path) -> None:
    provide(small_shm / "fits", SMALL // 2)
    with pytest.raises(
        NoRoom, match=rf"needs {SMALL:,} bytes and {small_shm} has {SMALL // 2:,} free: enlarge"
    ):
        provide(small_shm / "tier", SMALL)
    assert (small_shm / "tier").stat().st_blocks == 0
    provide(small_shm / "tier", SMALL // 4)
    segment = Segment(small_shm / "tier", SMALL // 4)
    segment.buffer[:] = b"x" * (SMALL // 4)
    segment.close()


def test_a_full_file_system_is_named_with_its_room_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tier"
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    with pytest.raises(NoRoom, match=rf"needs {free + (1 << 40):,} bytes and .* free: enlarge"):
        Segment(path, free + (1 << 40))
    assert path.stat().st_blocks == 0
    again = Segment(path, SIZE)
    again.close()

    def fails(file: int, offset: int, size: int) -> None:
        raise OSError(5, "broken")

    monkeypatch.setattr(segments.os, "posix_fallocate", fails)
    with pytest.raises(OSError, match="broken"):
        Segment(path, 2 * SIZE)


def test_links_and_folders_are_refused(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"somebody's")
    link = tmp_path / "link"
    link.symlink_to(target)
    for path in (link, tmp_path):
        with pytest.raises(SegmentError, match="can't be opened"):
            Segment(path, SIZE)
    assert target.read_bytes() == b"somebody's"
    assert not held(tmp_path / "nothing")
