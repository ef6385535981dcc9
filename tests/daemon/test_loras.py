"""The LoRA library: links that always resolve to complete content, whatever happens in between."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from scalesim_daemon.dirlock import DirectoryInUse
from scalesim_daemon.loras import LoraError, LoraLibrary, NoRoom
from scalesim_daemon.settings import ConfigError, LoraSettings

BYTES = 2000
CONFIG = b'{"r": 8}'


def make_lora(directory: Path, fill: bytes, size: int = BYTES) -> Path:
    directory.mkdir(parents=True)
    (directory / "adapter_config.json").write_bytes(CONFIG)
    (directory / "adapter_model.safetensors").write_bytes(fill * (size - len(CONFIG)))
    return directory


def weights(link: Path) -> bytes:
    return (link / "adapter_model.safetensors").read_bytes()


@pytest.fixture
def library(tmp_path: Path) -> Iterator[LoraLibrary]:
    library = LoraLibrary(tmp_path / "links", tmp_path / "staging", 2 * BYTES)
    library.recover()
    yield library
    library.close()


def staged_copies(tmp_path: Path) -> list[str]:
    return sorted(path.name for part in (tmp_path / "staging").iterdir() for path in part.iterdir())


def test_a_link_is_stable_and_tells_its_content(library: LoraLibrary, tmp_path: Path) -> None:
    first = library.link("alice", make_lora(tmp_path / "alice", b"a"))
    assert first.parent == tmp_path / "links"
    assert first.name.startswith("alice-")
    assert len(first.name) == len("alice-") + 12
    assert first.readlink() == tmp_path / "alice"
    assert library.path("alice") == first == library.link("alice", tmp_path / "alice")
    # The same content elsewhere is the same link; it moves to what was bound last.
    assert library.link("alice", make_lora(tmp_path / "moved", b"a")) == first
    assert first.readlink() == tmp_path / "moved"
    changed = library.link("alice", make_lora(tmp_path / "retrained", b"b"))
    assert changed != first
    assert weights(first)[:1] == b"a"
    assert weights(changed)[:1] == b"b"
    assert library.path("alice") == changed


def test_new_content_in_place_gives_a_new_link(library: LoraLibrary, tmp_path: Path) -> None:
    original = make_lora(tmp_path / "alice", b"a")
    first = library.link("alice", original)
    (original / "adapter_config.json").write_bytes(b'{"r": 16}')
    assert library.link("alice", original) != first


@pytest.mark.parametrize(
    "name", ["../../etc", "..", ".work", "/etc/passwd", "a/b", "é" * 120, "a" * 256, "\0", " ", "-x"]
)
def test_no_name_leaves_the_directory(library: LoraLibrary, tmp_path: Path, name: str) -> None:
    original = make_lora(tmp_path / "lora", b"a")
    link = library.link(name, original)
    assert link.parent == tmp_path / "links"
    assert Path(os.path.normpath(link)) == link
    assert link.is_symlink()
    assert link.name[0].isalnum() or link.name[0] in "_-~"
    library.stage(name)
    assert staged_copies(tmp_path) == [link.name]
    assert link.resolve() != original
    library.unstage(name)
    assert link.resolve() == original


def test_names_that_look_alike_have_different_links(library: LoraLibrary, tmp_path: Path) -> None:
    original = make_lora(tmp_path / "lora", b"a")
    names = ["a/b", "a_b", "a:b", "a b", "a" * 100, "a" * 101]
    assert len({library.link(name, original) for name in names}) == len(names)


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_what_is_no_lora_is_refused(library: LoraLibrary, tmp_path: Path, missing: str) -> None:
    original = make_lora(tmp_path / "lora", b"a")
    (original / missing).unlink()
    with pytest.raises(LoraError, match=r"is no LoRA: it needs adapter_config\.json"):
        library.link("alice", original)
    with pytest.raises(LoraError, match="is no LoRA"):
        library.link("alice", tmp_path / "nowhere")
    with pytest.raises(LoraError, match="not linked"):
        library.stage("alice")
    assert library.inventory() == ({}, 2 * BYTES)


def test_staging_flips_the_link_and_back(library: LoraLibrary, tmp_path: Path) -> None:
    original = make_lora(tmp_path / "alice", b"a")
    (original / "checkpoint-1").mkdir()
    (original / "README.md").write_text("read me")
    link = library.link("alice", original)
    size = BYTES + len("read me")
    assert library.inventory() == ({"alice": (original, size, False)}, 2 * BYTES)
    library.stage("alice")
    assert library.inventory() == ({"alice": (original, size, True)}, 2 * BYTES - size)
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
    assert library.inventory() == ({"alice": (original, size, False)}, 2 * BYTES)
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


def test_a_full_staging_directory_is_no_room(
    library: LoraLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = library.link("alice", make_lora(tmp_path / "alice", b"a"))

    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        with pytest.raises(NoRoom, match="is full"):
            library.stage("alice")
    assert staged_copies(tmp_path) == []
    assert link.resolve() == tmp_path / "alice"


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


def test_our_own_copies_are_no_originals(library: LoraLibrary, tmp_path: Path) -> None:
    link = library.link("alice", make_lora(tmp_path / "alice", b"a"))
    library.stage("alice")
    with pytest.raises(LoraError, match="one of this daemon's own copies"):
        library.link("bob", link)


def test_a_shutdown_removes_nothing_and_recovery_continues(library: LoraLibrary, tmp_path: Path) -> None:
    a, b = (library.link(name, make_lora(tmp_path / name, name.encode())) for name in "ab")
    library.stage("a")
    before = library.inventory()
    library.close()
    assert weights(a)[:1] == b"a"
    assert weights(b)[:1] == b"b"
    with pytest.raises(LoraError, match="call recover first"):
        library.stage("b")
    again = LoraLibrary(tmp_path / "links", tmp_path / "staging", 2 * BYTES)
    found = again.recover()
    assert (found.links, found.repaired, found.broken, found.dropped) == (2, (), (), 0)
    assert again.inventory() == before
    again.unstage("a")
    assert a.resolve() == tmp_path / "a"
    again.close()


def test_links_that_dangle_return_to_the_original(library: LoraLibrary, tmp_path: Path) -> None:
    for name in "ab":
        library.link(name, make_lora(tmp_path / name, name.encode()))
        library.stage(name)
    library.close()
    shutil.rmtree(tmp_path / "staging")
    shutil.rmtree(tmp_path / "b")
    again = LoraLibrary(tmp_path / "links", tmp_path / "staging", 2 * BYTES)
    found = again.recover()
    assert (found.links, found.repaired, found.broken, found.dropped) == (1, ("a",), ("b",), 0)
    assert weights(again.path("a"))[:1] == b"a"
    with pytest.raises(LoraError, match="not linked"):
        again.path("b")
    assert again.inventory()[1] == 2 * BYTES
    again.close()


def test_a_copy_with_other_content_is_not_trusted(library: LoraLibrary, tmp_path: Path) -> None:
    link = library.link("a", make_lora(tmp_path / "a", b"a"))
    library.stage("a")
    library.close()
    (link / "adapter_model.safetensors").write_bytes(b"\0" * BYTES)
    again = LoraLibrary(tmp_path / "links", tmp_path / "staging", 2 * BYTES)
    assert again.recover().repaired == ("a",)
    assert weights(link)[:1] == b"a"
    assert staged_copies(tmp_path) == []
    again.close()


def test_an_unreadable_record_costs_nothing_else(library: LoraLibrary, tmp_path: Path) -> None:
    a, b = (library.link(name, make_lora(tmp_path / name, name.encode())) for name in "ab")
    library.stage("a")
    library.close()
    (tmp_path / "links" / ".originals" / f"{a.name}.json").write_text("{")
    again = LoraLibrary(tmp_path / "links", tmp_path / "staging", 2 * BYTES)
    assert again.recover().links == 1
    assert weights(a)[:1] == b"a", "its copy stays: the link points to it"
    assert again.link("a", tmp_path / "a") == a
    again.unstage("a")
    assert weights(a)[:1] == b"a"
    assert weights(b)[:1] == b"b"
    again.close()


def test_one_daemon_per_directory(library: LoraLibrary, tmp_path: Path) -> None:
    with pytest.raises(DirectoryInUse):
        LoraLibrary(tmp_path / "links", tmp_path / "staging", BYTES).recover()
    both = LoraSettings(links_dir=tmp_path / "links", staging_dir=tmp_path / "staging")
    with pytest.raises(ConfigError, match="in use by another process"):
        LoraLibrary.open(both)
    # Other links may share the staging directory, and leave the first one's copies alone.
    link = library.link("alice", make_lora(tmp_path / "alice", b"a"))
    library.stage("alice")
    other = LoraLibrary.open(both.model_copy(update={"links_dir": tmp_path / "other"}))
    assert other.inventory()[0] == {}
    assert weights(link)[:1] == b"a"
    other.close()


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


# Crashes: an audit hook sees every file-system operation of the interpreter before it happens. A crash is an
# operation that doesn't happen, and none after it either, so that no cleanup code can run.


class Crash(BaseException):
    """The process ends here."""


class FileSystemWatch:
    """Calls `check` before every operation that changes files, and crashes at the `crash_at`-th."""

    CHANGES = frozenset(
        {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.truncate", "os.link"}
    )

    def __init__(self) -> None:
        self.check: Callable[[], None] | None = None
        self.crash_at: int | None = None
        self.operations = 0

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.check is None or not (event in self.CHANGES or self._opens_to_write(event, arguments)):
            return
        check, self.check = self.check, None
        check()
        self.check = check
        if self.crash_at is not None and self.operations >= self.crash_at:
            raise Crash
        self.operations += 1

    @staticmethod
    def _opens_to_write(event: str, arguments: tuple[Any, ...]) -> bool:
        return event == "open" and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))

    @contextmanager
    def during(self, check: Callable[[], None], crash_at: int | None) -> Iterator[None]:
        self.check, self.crash_at, self.operations = check, crash_at, 0
        try:
            yield
        finally:
            self.check = None


watch = FileSystemWatch()
sys.addaudithook(watch)

NAMES = "abc"
ACTIONS = st.sampled_from(["link", "stage", "unstage", "restart"])
STEPS = st.lists(st.tuples(ACTIONS, st.sampled_from(NAMES), st.none() | st.integers(0, 14)), max_size=12)


class Scene:
    """Three LoRAs of one size, a budget for two, and what must hold whenever anyone looks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.promised: set[Path] = set()
        for name in NAMES:
            make_lora(root / name, name.encode())
        self.library = self.new_library()
        self.library.recover()

    def new_library(self) -> LoraLibrary:
        return LoraLibrary(self.root / "links", self.root / "staging", 2 * BYTES)

    def check(self) -> None:
        links = {path for path in (self.root / "links").iterdir() if path.is_symlink()}
        assert self.promised <= links, "no link that was handed out goes away"
        for link in links:
            assert weights(link) == link.name[:1].encode() * (BYTES - len(CONFIG))
            assert (link / "adapter_config.json").read_bytes() == CONFIG
        staged = (path for path in (self.root / "staging").rglob("*") if path.is_file())
        assert sum(path.stat().st_size for path in staged) <= 2 * BYTES

    def do(self, action: str, name: str) -> None:
        match action:
            case "link":
                self.promised.add(self.library.link(name, self.root / name))
            case "stage":
                self.library.stage(name)
            case "unstage":
                self.library.unstage(name)
            case "restart":
                self.restart()

    def restart(self) -> None:
        self.library.close()
        self.library = self.new_library()
        self.library.recover()

    def step(self, action: str, name: str, crash_at: int | None) -> bool:
        """Do one thing; return whether it crashed."""
        try:
            with watch.during(self.check, crash_at):
                self.do(action, name)
        except LoraError:
            pass
        except Crash:
            self.check()
            self.restart()
            return True
        finally:
            self.check()
        return False


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STEPS)
def test_every_link_resolves_to_complete_content_at_every_moment(
    steps: list[tuple[str, str, int | None]],
) -> None:
    with tempfile.TemporaryDirectory() as root:
        scene = Scene(Path(root))
        for action, name, crash_at in steps:
            scene.step(action, name, crash_at)
        scene.restart()
        scene.check()
        used = {link.readlink() for link in (Path(root) / "links").iterdir() if link.is_symlink()}
        copies = {copy for part in (Path(root) / "staging").iterdir() for copy in part.iterdir()}
        assert copies <= used, "no copy outlives its link"
        for name in NAMES:
            scene.do("link", name)
            scene.do("unstage", name)
        scene.do("stage", "a")
        scene.do("stage", "b")
        assert scene.library.inventory()[1] == 0
        scene.library.close()


@pytest.mark.parametrize("action", ["link", "stage", "unstage", "restart"])
def test_a_crash_at_each_operation_of_each_action(tmp_path: Path, action: str) -> None:
    crashes = 0
    while True:
        root = tmp_path / str(crashes)
        root.mkdir()
        scene = Scene(root)
        if action != "link":
            scene.do("link", "a")
        if action in ("unstage", "restart"):
            scene.do("stage", "a")
        if action == "restart":
            copy = scene.library.path("a").resolve()
            shutil.copytree(copy, copy.with_name("unused"))
        crashed = scene.step(action, "a", crashes)
        scene.do("link", "a")
        scene.do("stage", "a")
        assert scene.library.inventory()[0]["a"][2]
        scene.library.close()
        if not crashed:
            break
        crashes += 1
    assert crashes >= 3
