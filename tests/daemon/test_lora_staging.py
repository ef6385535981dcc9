"""Staging of LoRAs: whole copies within a budget, and links that flip to them and back."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import BinaryIO

import pytest

from scalesim_daemon import loras
from scalesim_daemon.loras import LoraError, LoraLibrary, NoRoom
from tests.conftest import SMALL
from tests.daemon.lora_files import BYTES, CONFIG, make_lora, staged_copies, weights


def test_staging_flips_the_link_and_back(library: LoraLibrary, tmp_path: Path) -> None:
    original = make_lora(tmp_path / "alice", b"a")
    (original / "checkpoint-1").mkdir()
    (original / "README.md").write_text("read me")
    link = library.link("alice", original)
    size = BYTES + len("read me")
    assert library.inventory() == ({"alice": (link, size, False)}, 2 * BYTES)
    library.stage("alice")
    assert library.inventory() == ({"alice": (link, size, True)}, 2 * BYTES - size)
    assert tmp_path / "staging" in link.resolve().parents
    assert sorted(path.name for path in link.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert library.link("alice", original) == link
    assert tmp_path / "staging" in link.resolve().parents, "binding again takes nothing back"
    library.stage("alice")
    library.unstage("alice")
    assert link.resolve() == original
    assert staged_copies(tmp_path) == []
    assert library.inventory() == ({"alice": (link, size, False)}, 2 * BYTES)
    library.unstage("alice")


def test_files_that_are_links_are_copied(library: LoraLibrary, tmp_path: Path) -> None:
    blobs = make_lora(tmp_path / "blobs", b"a")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(f"../blobs/{blob.name}")
    link = library.link("alice", snapshot)
    library.stage("alice")
    assert not (link / "adapter_config.json").is_symlink()
    assert weights(link) == weights(blobs)


@pytest.mark.parametrize(("folder", "file"), [(0o700, 0o600), (0o755, 0o640), (0o555, 0o444)])
def test_nobody_can_read_a_copy_who_cannot_read_the_original(
    library: LoraLibrary, tmp_path: Path, folder: int, file: int
) -> None:
    original = make_lora(tmp_path / "alice", b"a")
    for path in original.iterdir():
        path.chmod(file)
    original.chmod(folder)
    link = library.link("alice", original)
    library.stage("alice")
    copy = link.readlink()
    assert copy != original
    # The daemon itself can write and remove it.
    assert copy.stat().st_mode & 0o777 == folder | 0o700
    assert {path.stat().st_mode & 0o777 for path in copy.iterdir()} == {file | 0o600}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_who_has_the_original_as_its_owner_or_by_its_group_has_the_copy(
    library: LoraLibrary, tmp_path: Path
) -> None:
    original = make_lora(tmp_path / "alice", b"a")
    for path in (*original.iterdir(), original):
        path.chmod(0o750)
        os.chown(path, 1234, 4321)
    link = library.link("alice", original)
    library.stage("alice")
    copy = link.readlink()
    assert copy != original
    assert {(path.stat().st_uid, path.stat().st_gid) for path in (*copy.iterdir(), copy)} == {(1234, 4321)}


@pytest.mark.parametrize(("mode", "staged"), [(0o640, False), (0o644, True), (0o600, True)])
def test_what_a_group_alone_may_read_is_not_staged_where_that_could_not_read_the_copy(
    library: LoraLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, staged: bool
) -> None:
    original = make_lora(tmp_path / "alice", b"a")
    for path in original.iterdir():
        path.chmod(mode)
    link = library.link("alice", original)

    def chown(path: Path, user: int, group: int) -> None:
        raise PermissionError(errno.EPERM, "no member of that group", str(path))

    monkeypatch.setattr(os, "chown", chown)
    if staged:
        library.stage("alice")
    else:
        with pytest.raises(PermissionError):
            library.stage("alice")
    assert (link.resolve() != original) == staged == bool(staged_copies(tmp_path))
    assert link.resolve().is_dir()


def test_what_was_trained_anew_in_place_is_staged_and_unstaged_beside_what_it_was(
    library: LoraLibrary, tmp_path: Path
) -> None:
    original = make_lora(tmp_path / "alice", b"a")
    before = library.link("alice", original)
    library.stage("alice")
    (original / "adapter_model.safetensors").write_bytes(b"b" * (BYTES - len(CONFIG)))
    after = library.link("alice", original)
    for _ in range(2):
        library.stage("alice")
        assert (weights(before)[:1], weights(after)[:1]) == (b"a", b"b")
        library.unstage("alice")
        assert after.resolve() == original
    assert weights(before)[:1] == b"a"


def test_the_budget_is_kept(library: LoraLibrary, tmp_path: Path) -> None:
    for name in "abc":
        library.link(name, make_lora(tmp_path / name, name.encode()))
    library.stage("a")
    library.stage("b")
    with pytest.raises(NoRoom, match=f"LoRA c has {BYTES} bytes, 0 of {2 * BYTES}"):
        library.stage("c")
    assert library.path("c").resolve() == tmp_path / "c"
    library.unstage("a")
    library.stage("c")
    assert weights(library.path("c"))[:1] == b"c"


def test_a_full_staging_directory_is_no_room(tmp_path: Path, small_shm: Path) -> None:
    library = LoraLibrary(tmp_path / "links", small_shm, 1 << 40)
    library.recover()
    links = [library.link(name, make_lora(tmp_path / name, name.encode(), SMALL // 3)) for name in "abc"]
    library.stage("a")
    library.stage("b")
    with pytest.raises(NoRoom, match=f"LoRA c: {small_shm} is full"):
        library.stage("c")
    assert [weights(link)[:1] for link in links] == [b"a", b"b", b"c"]
    assert links[2].resolve() == tmp_path / "c"
    library.unstage("a")
    library.stage("c")
    assert small_shm in links[2].resolve().parents
    library.close()


def test_all_space_of_a_copy_is_taken_before_anything_is_written(
    library: LoraLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = make_lora(tmp_path / "alice", b"a")
    (original / "empty").touch()
    library.link("alice", original)
    found: list[tuple[int, int]] = []

    fill = loras.fill

    def look(copy: Path, original: BinaryIO, at_once: int) -> None:
        sizes = [(path.stat().st_size, path.stat().st_blocks * 512) for path in copy.parent.iterdir()]
        found.append((sum(size for size, _ in sizes), sum(space for _, space in sizes)))
        fill(copy, original, at_once)

    monkeypatch.setattr(loras, "fill", look)
    library.stage("alice")
    assert [size for size, _ in found] == [BYTES] * 3
    assert all(space >= size for size, space in found)


def test_the_rest_of_a_failed_copy_is_not_part_of_the_next(library: LoraLibrary, tmp_path: Path) -> None:
    link = library.link("alice", make_lora(tmp_path / "alice", b"a"))
    (part,) = (tmp_path / "staging").iterdir()
    make_lora(part.with_name(f"{part.name}.part"), b"x")
    (part.with_name(f"{part.name}.part") / "adapter_model.bin").write_bytes(b"x")
    library.stage("alice")
    assert len(list(link.iterdir())) == 2


def test_a_copy_stays_where_its_original_is_gone_or_changed(library: LoraLibrary, tmp_path: Path) -> None:
    original = make_lora(tmp_path / "alice", b"a")
    link = library.link("alice", original)
    library.stage("alice")
    (original / "adapter_model.safetensors").write_bytes(b"other")
    with pytest.raises(LoraError, match="gone or changed, its copy stays"):
        library.unstage("alice")
    shutil.rmtree(original)
    with pytest.raises(LoraError, match="gone or changed, its copy stays"):
        library.unstage("alice")
    assert weights(link)[:1] == b"a"


def test_an_original_that_changed_is_not_staged_under_the_old_name(
    library: LoraLibrary, tmp_path: Path
) -> None:
    original = make_lora(tmp_path / "alice", b"a")
    library.link("alice", original)
    (original / "adapter_model.safetensors").write_bytes(b"other")
    with pytest.raises(LoraError, match="bind it again"):
        library.stage("alice")
    assert staged_copies(tmp_path) == []
    library.link("alice", original)
    library.stage("alice")
    assert weights(library.path("alice")) == b"other"


def test_a_copy_that_was_damaged_is_made_anew(library: LoraLibrary, tmp_path: Path) -> None:
    link = library.link("alice", make_lora(tmp_path / "alice", b"a"))
    library.stage("alice")
    (link / "adapter_model.safetensors").unlink()
    library.stage("alice")
    assert weights(link) == weights(tmp_path / "alice")
    assert tmp_path / "staging" in link.resolve().parents


def test_a_staging_directory_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "staging").mkdir()
    if os.geteuid() == 0:
        os.chown(tmp_path / "staging", 12345, 12345)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    library = LoraLibrary(tmp_path / "links", tmp_path / "staging", BYTES)
    with pytest.raises(LoraError, match=r"belongs to another user: set loras\.staging_dir"):
        library.recover()
